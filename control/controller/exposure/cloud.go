package exposure

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// refused reports whether the cloud seems to refuse two protocols in one Service:
// it says so, or gave no address for a while. While it may still give one, it
// notes when to look again.
func (w *work) refused(s *corev1.Service) bool {
	if isSplit(s) || isSecond(s) {
		return false
	}
	if c := meta.FindStatusCondition(s.Status.Conditions, corev1.LoadBalancerPortsError); c != nil && c.Status == metav1.ConditionTrue {
		return true
	}
	ingress := s.Status.LoadBalancer.Ingress
	if slices.ContainsFunc(ingress, portRefused) {
		return true
	}
	// One that worked once has lost its address for another reason.
	return len(ingress) == 0 && !readApplied(s).Worked && w.late(s)
}

// portRefused reports whether the cloud says of a port that it does not work.
func portRefused(i corev1.LoadBalancerIngress) bool {
	return slices.ContainsFunc(i.Ports, func(p corev1.PortStatus) bool { return p.Error != nil && *p.Error != "" })
}

// late reports whether the cloud had its time to give s an address.
func (w *work) late(s *corev1.Service) bool {
	left := patience - w.Now.Sub(s.CreationTimestamp.Time)
	if left > 0 {
		w.again(left)
	}
	return left <= 0
}

func (w *work) again(d time.Duration) {
	if w.Again == 0 || d < w.Again {
		w.Again = d
	}
}

// cloudSplits reports whether a Service of ours had to be split before.
func (w *work) cloudSplits() bool {
	return slices.ContainsFunc(w.all, func(s *corev1.Service) bool { return isOwn(s) && isSplit(s) })
}

package exposure

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"corax/control/api/v1beta1"
)

// isTunnel reports whether s carries the three labels by which the Services of an
// endpoint are found.
func isTunnel(s *corev1.Service) bool {
	return s.Labels[v1beta1.LabelGateway] != "" && s.Labels[v1beta1.LabelEndpointsName] != "" &&
		s.Labels[v1beta1.LabelGatewayType] == v1beta1.TypeTunnel
}

// isOwn reports whether our controller made or adopted s.
func isOwn(s *corev1.Service) bool { return s.Labels[v1beta1.LabelManagedBy] == v1beta1.ManagedBy }

// isRavens reports whether s looks like what Raven's controller made: it is
// adopted. Any other Service with the labels is a person's: it is used as it is.
func isRavens(s *corev1.Service) bool { return strings.HasPrefix(s.Name, namePrefix) }

// Concerns returns the Gateway that s exposes; empty when it exposes none.
func Concerns(s *corev1.Service) string {
	if !isTunnel(s) {
		return ""
	}
	return s.Labels[v1beta1.LabelGateway]
}

// sortServices finds ours among all. The better of two for the same end comes
// first: ours, not going away, with an address, older.
func (w *work) sortServices() {
	for i := range w.Services {
		s := &w.Services[i]
		w.taken[s.Name] = true
		if !isTunnel(s) {
			continue
		}
		w.all = append(w.all, s)
		if s.Labels[v1beta1.LabelGateway] == w.Gateway.Name {
			w.mine = append(w.mine, s)
		}
	}
	w.shared = w.Settings.shared(w.Services)
	for _, s := range w.all {
		if w.shared != "" && s.Annotations[annotationBalancerID] == w.shared {
			for _, p := range s.Spec.Ports {
				w.ports[port{p.Protocol, p.Port}] = s
			}
		}
	}
	rank := func(s *corev1.Service) int {
		n := 0
		for i, bad := range []bool{len(s.Status.LoadBalancer.Ingress) == 0, !isOwn(s), s.DeletionTimestamp != nil} {
			if bad {
				n += 1 << i
			}
		}
		return n
	}
	slices.SortFunc(w.mine, func(a, b *corev1.Service) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)),
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// of returns the Services of a hub: the one for UDP, or both protocols, and the
// one for TCP alone; nil where there is none. One that is going away does not
// count.
func (w *work) of(node string) (main, second *corev1.Service) {
	for _, s := range w.mine {
		if s.Labels[v1beta1.LabelEndpointsName] != node || s.DeletionTimestamp != nil {
			continue
		}
		if isSecond(s) {
			second = cmp.Or(second, s)
		} else {
			main = cmp.Or(main, s)
		}
	}
	return main, second
}

// isSecond reports whether s is for TCP alone, isSplit whether it is for UDP alone.
func isSecond(s *corev1.Service) bool {
	return s.Annotations[v1beta1.AnnotationProtocols] == string(corev1.ProtocolTCP)
}

func isSplit(s *corev1.Service) bool {
	return s.Annotations[v1beta1.AnnotationProtocols] == string(corev1.ProtocolUDP)
}

// release deletes the Services of nodes that are not wanted, and all but the best
// of each hub.
func (w *work) release(wanted map[string]bool) {
	for _, s := range w.mine {
		node := s.Labels[v1beta1.LabelEndpointsName]
		if !wanted[node] {
			w.unpublish(s, node)
		}
		if s.DeletionTimestamp != nil || !isOwn(s) && !isRavens(s) {
			continue
		}
		main, second := w.of(node)
		if !wanted[node] || s != main && s != second {
			w.Delete = append(w.Delete, s)
		}
	}
}

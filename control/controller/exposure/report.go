package exposure

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
)

// Reasons of the conditions.
const (
	reasonPublished = "Published"
	reasonPending   = "Pending"
	reasonNoHub     = "NoActiveEndpoint"
	reasonName      = "BadName"
	reasonPort      = "PortInUse"
	reasonAddress   = "NoAddress"
	reasonNode      = "NoNode"
	reasonTCP       = "FallbackElsewhere"
	reasonAllowList = "AllowListUnknown"

	reasonRefused = "Refused"
	reasonHidden  = "OnlyTheBalancer"
	reasonForeign = "SetBySomebodyElse"
	reasonWarning = "Warning"
	reasonApplied = "Applied"
)

// problem is something that a person must mend.
type problem struct{ reason, message string }

func (w *work) problem(reason, format string, args ...any) {
	w.problems = append(w.problems, problem{reason, fmt.Sprintf(format, args...)})
}

func (w *work) wait(format string, args ...any) {
	w.waiting = append(w.waiting, fmt.Sprintf(format, args...))
}

// change notes a Service that differs from what it should be.
func (w *work) change(was, is *corev1.Service) {
	if !sameService(was, is) {
		w.Change = append(w.Change, Change[corev1.Service]{was, is})
	}
}

// conditions says how the exposure of the Gateway stands.
func (w *work) conditions(hubs []hub) {
	if w.Gateway.Spec.ExposeType != v1beta1.ExposeLoadBalancer && w.Gateway.Spec.ExposeType != v1beta1.ExposePublicIP {
		return
	}
	c := metav1.Condition{
		Type: ConditionExposed, Status: metav1.ConditionTrue, Reason: reasonPublished,
		Message: fmt.Sprintf("%d nodes", len(hubs)),
	}
	switch {
	case len(w.problems) > 0:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, w.problems[0].reason, w.texts()
	case len(w.waiting) > 0:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, reasonPending, strings.Join(w.waiting, "; ")
	case len(hubs) == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, reasonNoHub, "no endpoint is active in a mode that is on"
	}
	w.Conditions = append(w.Conditions, clip(c))
	if a, ok := w.allowList(); ok {
		w.Conditions = append(w.Conditions, clip(a))
	}
}

// allowList says how the allow list stands; nothing while there is none.
func (w *work) allowList() (metav1.Condition, bool) {
	c := metav1.Condition{Type: ConditionAllowList, Status: metav1.ConditionTrue}
	switch hidden, foreign := w.hidden(), w.foreign(); {
	case w.Settings.Refused != "":
		c.Status, c.Reason = metav1.ConditionFalse, reasonRefused
		c.Message = w.Settings.Refused + "; what was in force stays"
	case len(w.Settings.Allow) == 0:
		return c, false
	case len(hidden) > 0:
		c.Reason = reasonHidden
		c.Message = "sources are hidden from the hubs, so only the balancer applies the list: " + strings.Join(hidden, "; ")
	case len(foreign) > 0:
		c.Reason = reasonForeign
		c.Message = "loadBalancerSourceRanges were set by somebody else, only the hubs apply the list: " + strings.Join(foreign, ", ")
	case len(w.Settings.Warnings) > 0:
		c.Reason, c.Message = reasonWarning, strings.Join(w.Settings.Warnings, "; ")
	default:
		c.Reason, c.Message = reasonApplied, fmt.Sprintf("%d entries", len(w.Settings.Allow))
	}
	return c, true
}

// hidden names the Services behind which a hub does not see who sends, and why.
func (w *work) hidden() []string {
	var list []string
	for _, s := range w.mine {
		proxied := slices.ContainsFunc(s.Status.LoadBalancer.Ingress, func(i corev1.LoadBalancerIngress) bool {
			return i.IPMode != nil && *i.IPMode == corev1.LoadBalancerIPModeProxy
		})
		switch {
		case slices.Contains(w.Delete, s) || s.DeletionTimestamp != nil:
		case proxied:
			list = append(list, s.Name+" (the balancer is a proxy)")
		case s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyCluster:
			list = append(list, s.Name+" (externalTrafficPolicy is Cluster)")
		}
	}
	return list
}

// foreign names the Services whose sources somebody else says.
func (w *work) foreign() []string {
	var list []string
	for _, s := range w.mine {
		if !slices.Contains(w.Delete, s) && s.DeletionTimestamp == nil && !w.Adopt[s.Name] && foreignRanges(s) {
			list = append(list, s.Name)
		}
	}
	return list
}

func (w *work) texts() string {
	var t []string
	for _, p := range w.problems {
		t = append(t, p.message)
	}
	return strings.Join(append(t, w.waiting...), "; ")
}

// clip bounds a message: the API server takes 32,768 bytes, a person reads less.
func clip(c metav1.Condition) metav1.Condition {
	c.Message = v1beta1.Clip(c.Message, 1024)
	return c
}

// Good reports whether a condition says that all is well.
func Good(c *metav1.Condition) bool {
	return c.Status == metav1.ConditionTrue && (c.Reason == reasonPublished || c.Reason == reasonApplied)
}

// Harmless reports whether a condition, without being good, needs nobody's work:
// what it waits for will come.
func Harmless(c *metav1.Condition) bool { return c.Reason == reasonPending || c.Reason == reasonNoHub }

package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

func exposureConditions() []string {
	return []string{exposure.ConditionExposed, exposure.ConditionAllowList}
}

// conditionsChange reports whether the conditions of these types differ from what
// they should be; a type that want does not have should be absent.
func conditionsChange(g *gateway.Gateway, want []metav1.Condition, kinds []string) bool {
	for _, kind := range kinds {
		is, should := meta.FindStatusCondition(g.Status.Conditions, kind), meta.FindStatusCondition(want, kind)
		if !sameCondition(is, should) {
			return true
		}
	}
	return false
}

func sameCondition(a, b *metav1.Condition) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message
}

// setConditions writes the conditions of these types, keeps all others, and raises
// an event for each that changed to something that a person should know.
func setConditions(ctx context.Context, c client.Client, e events.EventRecorder, g *gateway.Gateway,
	want []metav1.Condition, kinds []string, now time.Time,
) error {
	is := *g
	is.Status.Conditions = slices.Clone(g.Status.Conditions)
	for _, kind := range kinds {
		if meta.FindStatusCondition(want, kind) == nil {
			meta.RemoveStatusCondition(&is.Status.Conditions, kind)
		}
	}
	for _, w := range want {
		w.LastTransitionTime = metav1.Time{Time: now}
		meta.SetStatusCondition(&is.Status.Conditions, w)
	}
	patch, err := gateway.StatusPatch(g, &is)
	if err != nil || patch == nil {
		return err
	}
	was := g.Status.Conditions
	if err := c.Status().Patch(ctx, g, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("patch status of Gateway %s: %w", g.Name, err)
	}
	for _, w := range want {
		if sameCondition(meta.FindStatusCondition(was, w.Type), &w) {
			continue
		}
		if kind := severity(&w); kind != "" {
			e.Eventf(g, nil, kind, w.Type+w.Reason, "Expose", "%s", w.Message)
		}
	}
	return nil
}

// severity returns the type of event that a condition is worth; empty: none.
func severity(c *metav1.Condition) string {
	switch {
	case exposure.Good(c):
		return corev1.EventTypeNormal
	case exposure.Harmless(c):
		return ""
	default:
		return corev1.EventTypeWarning
	}
}

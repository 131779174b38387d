package election

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/kube/gateway"
)

// Reasons of the condition Ready. It is true with the first two only.
const (
	// ReasonActive: all endpoints that are wanted are active.
	ReasonActive = "Active"
	// ReasonDegraded: traffic is carried by fewer endpoints than wanted, or by
	// some that had better not.
	ReasonDegraded = "Degraded"
	// ReasonNoPublicKey: who is active has published no public key yet.
	ReasonNoPublicKey = "NoPublicKey"
	// ReasonNoneEligible: no candidate is eligible; who was active stays.
	ReasonNoneEligible = "NoEligibleEndpoint"
	// ReasonNoEndpoints: spec.endpoints lists nobody.
	ReasonNoEndpoints = "NoEndpoints"
	// ReasonDisabled: both modes are off.
	ReasonDisabled = "Disabled"
)

// unbound says that entries are not bound to their nodes.
func unbound() metav1.Condition {
	return metav1.Condition{
		Type: gateway.ConditionBound, Status: metav1.ConditionFalse, Reason: "Unbound",
		Message: "any node can write the keys of any other (identity.insecure): Kubernetes before 1.30 cannot bind them",
	}
}

// ready says whether the domain's traffic is carried. Its words hold nothing that
// changes by itself, so that an idle Gateway is not written.
func ready(d Domain, modes []Mode) metav1.Condition {
	c := metav1.Condition{Type: gateway.ConditionReady, Status: metav1.ConditionFalse, Reason: ReasonDisabled, Message: "both modes are off"}
	var texts []string
	worst := -1
	for _, m := range modes {
		if !m.on() {
			continue
		}
		rank, text := d.verdict(m)
		worst = max(worst, rank)
		texts = append(texts, m.Type+": "+text)
	}
	if worst < 0 {
		return c
	}
	c.Reason = ranking()[worst]
	if c.Reason == ReasonActive || c.Reason == ReasonDegraded {
		c.Status = metav1.ConditionTrue
	}
	c.Message = strings.Join(texts, "; ")
	return c
}

// ranking lists the reasons of a mode, worse ones last.
func ranking() []string {
	return []string{ReasonActive, ReasonDegraded, ReasonNoPublicKey, ReasonNoneEligible, ReasonNoEndpoints}
}

// verdict returns how well a mode does, as an index of ranking, and in words.
func (d Domain) verdict(m Mode) (int, string) {
	by := map[string]Candidate{}
	var faults []string
	for _, c := range m.Candidates {
		by[c.Node] = c
		if !c.Eligible {
			faults = append(faults, c.Node+" "+c.Why)
		}
	}
	if len(m.Candidates) == 0 {
		return 4, "spec.endpoints lists no node"
	}
	if m.Seats.Stale || len(m.Seats.Active) == 0 {
		text := "no candidate is eligible (" + strings.Join(faults, ", ") + ")"
		if len(m.Seats.Active) > 0 {
			text += "; " + strings.Join(m.Seats.Active, ", ") + " stays active"
		}
		return 3, text
	}
	keyed, flawed := 0, []string(nil)
	for _, name := range m.Seats.Active {
		c := by[name]
		if c.Demerits&noKey == 0 {
			keyed++
		}
		if c.Demerits&^unpinned != 0 {
			flawed = append(flawed, name+" "+c.wish(unpinned))
		}
	}
	text := fmt.Sprintf("%d of %d active: %s", len(m.Seats.Active), m.Replicas, strings.Join(m.Seats.Active, ", "))
	if len(m.Seats.Leaving) > 0 {
		text += "; handing over: " + strings.Join(m.Seats.Leaving, ", ")
	}
	if len(flawed) > 0 {
		text += "; " + strings.Join(flawed, ", ")
	}
	if len(faults) > 0 {
		text += "; not eligible: " + strings.Join(faults, ", ")
	}
	switch {
	case keyed == 0:
		return 2, text
	case len(m.Seats.Active) < m.Replicas, len(flawed) > len(m.Seats.Leaving):
		return 1, text
	}
	return 0, text
}

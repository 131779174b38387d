package election

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"corax/control/api/v1beta1"
)

// Durations of the Leases that agents keep, and what we make of them.
const (
	// activeDuration is the longest one that an agent writes that knows that it
	// is active.
	activeDuration = 10 * time.Second
	// activeGrace bounds how long an active node may be silent, whatever its
	// Lease says: it may have died before it heard that it is active.
	activeGrace = 12 * time.Second
	// defaultDuration stands in for a Lease that gives none.
	defaultDuration = 30 * time.Second
	maxDuration     = 5 * time.Minute
)

// Lease is what a node's Lease says.
type Lease struct {
	// Released means that the agent is alive and cannot carry traffic, for Reason.
	Released bool
	Reason   string
	// Renewed is a time of the node's clock: only that it changes counts.
	Renewed time.Time
	// Duration is how long it is good for.
	Duration time.Duration
}

// ReadLease reads what counts of a Lease.
func ReadLease(l *coordinationv1.Lease) Lease {
	out := Lease{Released: true, Reason: l.Annotations[v1beta1.AnnotationReason], Duration: defaultDuration}
	if h := l.Spec.HolderIdentity; h != nil && *h != "" {
		out.Released, out.Reason = false, ""
	}
	if r := l.Spec.RenewTime; r != nil {
		out.Renewed = r.Time
	}
	if s := l.Spec.LeaseDurationSeconds; s != nil && *s > 0 {
		out.Duration = min(time.Duration(*s)*time.Second, maxDuration)
	}
	return out
}

// equal reports whether two say the same; times are compared as instants.
func (l Lease) equal(o Lease) bool {
	return l.Released == o.Released && l.Reason == o.Reason && l.Duration == o.Duration && l.Renewed.Equal(o.Renewed)
}

// State is what a node's Lease makes of the node.
type State int

// States of a Lease.
const (
	// NoLease: there is none.
	NoLease State = iota
	// Fresh: renewed lately, as far as we can know.
	Fresh
	// Lapsed: we were in touch for its whole duration and saw no renewal.
	Lapsed
	// Released: the agent says that it carries nothing.
	Released
)

// Standing is the state of a node's Lease, and the agent's words for it.
type Standing struct {
	State  State
	Reason string
}

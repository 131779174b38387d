package election

import (
	"slices"
	"sync"
	"time"
)

const (
	// contactGap is the longest time between two signs of the API server for which
	// we count as in touch with it. It is short against a Lease's duration, so that
	// agents who could not renew either have time to do so.
	contactGap = 2500 * time.Millisecond
	// renewSlack is by how much a renewal may be late.
	renewSlack = 500 * time.Millisecond
	// settleMin is how long a new gateway node has to open its paths before the
	// one that it replaces goes, and settleMax how long at most we wait for its
	// agent to know of its seat.
	settleMin = 3 * time.Second
	settleMax = 15 * time.Second
)

// Tracker judges Leases by when it saw them change. All times are of one clock,
// the caller's, which gives them rising. The zero value is ready to use; all
// methods may be called concurrently.
type Tracker struct {
	mu    sync.Mutex
	nodes map[string]*tracked
	// since is when the present contact with the API server began, and contact the
	// last sign of it.
	since, contact time.Time
}

type tracked struct {
	known    bool // there is a Lease
	lease    Lease
	changed  time.Time // when we saw it change
	active   time.Time // since when the node is active; zero: it is not
	reported Standing  // what callers were told last
}

// Contact notes that the API server answered at now. Between two signs more than
// contactGap apart nobody may have been able to renew: then all Leases get their
// whole duration again.
func (t *Tracker) Contact(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.touch(now)
}

func (t *Tracker) touch(now time.Time) {
	if t.contact.IsZero() || now.Sub(t.contact) > contactGap {
		t.since = now
	}
	if now.After(t.contact) {
		t.contact = now
	}
}

// Unsure reports whether a sign of the API server is wanted: there are Leases, and
// there was none for the given time, or one of them would have lapsed by now.
func (t *Tracker) Unsure(now time.Time, quiet time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	silent := now.Sub(t.contact) >= quiet
	for _, n := range t.nodes {
		if !n.known {
			continue
		}
		if end := t.end(n); silent || !n.lease.Released && t.contact.Before(end) && !now.Before(end) {
			return true
		}
	}
	return false
}

// Observe notes a node's Lease as it is at now. It reports whether that may change
// an election: most renewals do not.
func (t *Tracker) Observe(now time.Time, node string, l Lease) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.node(node)
	acknowledged := n.known && n.lease.Duration <= activeDuration
	if !n.known || !n.lease.equal(l) {
		n.known, n.lease, n.changed = true, l, now
		t.touch(now)
	}
	return t.tell(n) || acknowledged != (l.Duration <= activeDuration)
}

// Forget notes that the node has no Lease, and reports as Observe does.
func (t *Tracker) Forget(node string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[node]
	if n == nil {
		return false
	}
	n.known = false
	changed := t.tell(n)
	t.drop(node)
	return changed
}

// Seat notes whether the node is active in its domain. It must be told of every
// seat that is taken or left.
func (t *Tracker) Seat(now time.Time, node string, active bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !active {
		if n := t.nodes[node]; n != nil {
			n.active = time.Time{}
			t.drop(node)
		}
		return
	}
	if n := t.node(node); n.active.IsZero() {
		n.active = now
	}
}

// Standing returns the state of the node's Lease.
func (t *Tracker) Standing(node string) Standing {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[node]
	if n == nil {
		return Standing{}
	}
	return t.standing(n)
}

// Outlived reports whether the Lease of other was seen to change so long after that
// of dead that dead, too, would have renewed, were it alive. Both stop at once where
// their site loses the API server.
func (t *Tracker) Outlived(dead, other string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, b := t.nodes[dead], t.nodes[other]
	if a == nil || b == nil || !a.known || !b.known {
		return false
	}
	// Agents renew three times in a Lease's duration.
	return b.changed.Sub(a.changed) > a.lease.Duration/3+renewSlack
}

// LapsedFor returns for how long a node's Lease has lapsed; zero: it has not.
func (t *Tracker) LapsedFor(node string) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[node]
	if n == nil || t.standing(n).State != Lapsed {
		return 0
	}
	return t.contact.Sub(t.end(n))
}

// Settled reports whether a node that is active may stand alone: it was active for
// a while, and its agent knows. Until then it returns how long to wait at most. A
// node that is not active has not settled, and there is nothing to wait for.
func (t *Tracker) Settled(now time.Time, node string) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[node]
	if n == nil || n.active.IsZero() {
		return 0, false
	}
	need := settleMin
	if n.known && n.lease.Duration > activeDuration {
		need = settleMax
	}
	left := need - now.Sub(n.active)
	return max(left, 0), left <= 0
}

// Sweep returns the nodes whose standing changed since a caller was told of it,
// sorted: Leases lapse without anything happening.
func (t *Tracker) Sweep() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for name, n := range t.nodes {
		if t.tell(n) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// standing judges by the last contact, not by the time: while there is none we
// learn nothing, so nothing can lapse.
func (t *Tracker) standing(n *tracked) Standing {
	switch {
	case !n.known:
		return Standing{}
	case n.lease.Released:
		return Standing{State: Released, Reason: n.lease.Reason}
	}
	if t.contact.Before(t.end(n)) {
		return Standing{State: Fresh}
	}
	return Standing{State: Lapsed}
}

// end is when a Lease lapses unless we see a renewal.
func (t *Tracker) end(n *tracked) time.Time {
	from := later(n.changed, t.since)
	end := from.Add(n.lease.Duration)
	if !n.active.IsZero() && n.lease.Duration > activeGrace {
		if g := later(from, n.active).Add(activeGrace); g.Before(end) {
			end = g
		}
	}
	return end
}

func (t *Tracker) tell(n *tracked) bool {
	s := t.standing(n)
	changed := s != n.reported
	n.reported = s
	return changed
}

func (t *Tracker) node(name string) *tracked {
	n := t.nodes[name]
	if n == nil {
		if t.nodes == nil {
			t.nodes = map[string]*tracked{}
		}
		n = &tracked{}
		t.nodes[name] = n
	}
	return n
}

// drop forgets a node of which nothing is known.
func (t *Tracker) drop(name string) {
	if n := t.nodes[name]; !n.known && n.active.IsZero() {
		delete(t.nodes, name)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

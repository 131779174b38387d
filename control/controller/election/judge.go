package election

import (
	"corax/control/api/v1beta1"
)

// Causes why an endpoint is not eligible, lost its seat, or should hand it over;
// they are what events and conditions say.
const (
	CauseUnlisted  = "removed: spec.endpoints no longer lists it"
	CauseGone      = "removed: the node left the domain"
	CauseLapsed    = "agent dead: Lease lapsed"
	CauseNotReady  = "node not Ready"
	CauseCordoned  = "cordoned"
	CauseNoTraffic = "carries no traffic"
	CauseNoKey     = "no public key published"
	CauseUnpinned  = "another node is pinned"
	CauseSurplus   = "more were active than Replicas says"
	CauseOff       = "the mode is off"
)

// Demerits of a candidate: a higher sum is worse, and each weighs more than all
// that are listed after it.
const (
	noKey    = 8
	cordoned = 4
	notReady = 2
	unpinned = 1
)

// Candidate is a listed endpoint of one type, judged.
type Candidate struct {
	Node, Zone string
	// Eligible says that it may be active; Why says why not.
	Eligible bool
	Why      string
	// Gone nodes cannot even stay active for want of another.
	Gone bool
	// Doubtful says that its Lease lapsed, which counts when another candidate
	// shows that the API server can be reached from there. Until then an active
	// one stays.
	Doubtful bool
	// Silent says that since some Lease lapsed nothing was seen of this one.
	Silent bool
	// Demerits is the sum of what speaks against it.
	Demerits int
	// Settled says that it is active and may stand alone.
	Settled bool
}

// wish is why a candidate with the demerits d should have the seat of c, which has
// more.
func (c Candidate) wish(d int) string {
	switch more := c.Demerits &^ d; {
	case more&noKey != 0:
		return CauseNoKey
	case more&cordoned != 0:
		return CauseCordoned
	case more&notReady != 0:
		return CauseNotReady
	default:
		return CauseUnpinned
	}
}

// Domain is what is known of one Gateway when its candidates are judged.
type Domain struct {
	// Nodes of the domain, sorted by name.
	Nodes []Node
	// Endpoints are spec.endpoints.
	Endpoints []v1beta1.Endpoint
	// Passing are the entries that stay until others have taken over, and get no seat
	// beside those; see [Want.Passing].
	Passing map[Entry]bool
	// Standing returns the state of a node's Lease; nil means that there are none.
	Standing func(node string) Standing
	// Outlived says whether other was seen to renew its Lease when dead, alive,
	// would have, too; nil: a Lease that lapsed counts at once.
	Outlived func(dead, other string) bool
	// Settled says whether an active node may stand alone; nil means that all may.
	Settled func(node string) bool
	// Holder returns who else than a node has a public key, in base64, in its
	// entry, in words; empty: nobody. Nil means that nobody has.
	Holder func(node, key string) string
	// Unbound says that nothing keeps a node from writing another's entry.
	Unbound bool
}

// Judge returns the candidates of one type, in the order of spec.endpoints; the
// first entry of a node counts.
func (d Domain) Judge(kind string) []Candidate {
	alone := len(d.listed()) < 2
	var out []Candidate
	seen := map[string]bool{}
	for i := range d.Endpoints {
		e := &d.Endpoints[i]
		if e.Type != kind || seen[e.NodeName] {
			continue
		}
		seen[e.NodeName] = true
		out = append(out, d.judge(e.NodeName, alone))
	}
	return out
}

func (d Domain) judge(name string, alone bool) Candidate {
	c := Candidate{Node: name, Settled: d.Settled == nil || d.Settled(name)}
	n := find(d.Nodes, name)
	if n == nil {
		c.Gone, c.Why = true, CauseGone
		return c
	}
	c.Zone = n.Zone
	c.Why = d.fault(n, alone)
	switch {
	case alone || d.Outlived == nil || d.Standing == nil:
	case c.Why == CauseLapsed && d.doubtful(name):
		c.Doubtful, c.Why = true, ""
	case c.Why == "":
		c.Silent = d.silent(name)
	}
	c.Eligible = c.Why == ""
	for _, m := range []struct {
		yes  bool
		cost int
	}{{!d.keyed(name), noKey}, {n.Cordoned, cordoned}, {!n.Ready, notReady}, {!n.Pinned, unpinned}} {
		if m.yes {
			c.Demerits += m.cost
		}
	}
	return c
}

// doubtful reports whether the lapse of a node's Lease tells nothing of the node
// yet: others could be alive, and none has shown it since.
func (d Domain) doubtful(name string) bool {
	doubt := false
	for _, other := range d.listed() {
		n := find(d.Nodes, other)
		if n == nil || other == name {
			continue
		}
		switch d.Standing(other).State {
		case NoLease:
			if n.Ready {
				return false // it will never show anything
			}
		case Fresh:
			if d.Outlived(name, other) {
				return false
			}
			doubt = true
		}
	}
	return doubt
}

// silent reports whether a node with a fresh Lease may be as dead as one of which
// it lapsed.
func (d Domain) silent(name string) bool {
	if d.Standing(name).State != Fresh {
		return false
	}
	for _, other := range d.listed() {
		if other != name && d.Standing(other).State == Lapsed && find(d.Nodes, other) != nil && !d.Outlived(other, name) {
			return true
		}
	}
	return false
}

// fault says why a node of the domain is not eligible; "" when it is.
func (d Domain) fault(n *Node, alone bool) string {
	var s Standing
	// The only candidate keeps no Lease: one that is there is from other days.
	if d.Standing != nil && !alone {
		s = d.Standing(n.Name)
	}
	switch {
	case s.State == Released && s.Reason != "":
		return CauseNoTraffic + ": " + clip(s.Reason)
	case s.State == Released:
		return CauseNoTraffic
	case s.State == Lapsed:
		return CauseLapsed
	case s.State == NoLease && !n.Ready:
		return CauseNotReady
	}
	return ""
}

// keyed reports whether any entry of the node has a public key that can be used.
func (d Domain) keyed(name string) bool {
	for i := range d.Endpoints {
		e := &d.Endpoints[i]
		if k, err := e.PublicKey(); e.NodeName == name && err == nil && !k.IsZero() {
			return true
		}
	}
	return false
}

// listed returns the names in spec.endpoints, each once, in order.
func (d Domain) listed() []string { return names(d.Endpoints) }

func names(list []v1beta1.Endpoint) []string {
	var out []string
	seen := map[string]bool{}
	for i := range list {
		if n := list[i].NodeName; !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// clip bounds what is repeated of an agent's words.
func clip(s string) string { return v1beta1.Clip(s, 200) }

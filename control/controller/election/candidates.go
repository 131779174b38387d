package election

import (
	"cmp"
	"slices"

	"corax/control/api/v1beta1"
)

// Bounds of spec.endpoints.
const (
	// MaxEntries is what the CRD takes.
	MaxEntries = 64
	// maxPinned and maxChosen bound the nodes that we list: pinned ones, and Ready
	// ones that we choose ourselves. Each listed node writes to the Gateway.
	maxPinned = v1beta1.MaxReplicas
	maxChosen = 3
)

// Want is what spec.endpoints of a Gateway of ours should follow from.
type Want struct {
	// Nodes of the domain, sorted by name.
	Nodes []Node
	// Endpoints are spec.endpoints as they are, and Ours names the nodes in it
	// that we listed; other entries are a person's.
	Endpoints []v1beta1.Endpoint
	Ours      []string
	// Active names the nodes that are active in any mode. They stay listed while
	// they are in the domain: they hand over first.
	Active []string
	// Types are the modes that are on, in the order in which entries are added.
	Types []string
	// UnderNAT is for the first entry; later ones copy it, since the API server
	// wants it equal in all.
	UnderNAT bool
	// MinProxies is how many entries of type proxy must stay: Replicas that a
	// person set cannot be met by fewer, and the API server refuses that.
	MinProxies int
}

// Listing is a change of spec.endpoints.
type Listing struct {
	// Remove holds indexes of entries that go, falling.
	Remove []int
	// Add holds entries for the end of the list.
	Add []v1beta1.Endpoint
	// Ours is the new list of nodes that we listed, sorted.
	Ours []string
}

// Same reports whether nothing is to be written, given Ours as it is.
func (l Listing) Same(ours []string) bool {
	was := slices.Sorted(slices.Values(ours))
	return len(l.Remove) == 0 && len(l.Add) == 0 && slices.Equal(was, l.Ours)
}

// Candidates says how spec.endpoints should change. Entries that stay are not
// touched: their agents and persons fill them.
func Candidates(w Want) Listing {
	nodes := w.choose()
	var out Listing
	kept := map[string]bool{} // type + "/" + node
	stays := map[string]bool{}
	spare := w.count(v1beta1.TypeProxy) - w.MinProxies
	for i := range w.Endpoints {
		e := &w.Endpoints[i]
		goes := slices.Contains(w.Ours, e.NodeName) && !slices.Contains(nodes, e.NodeName)
		if goes && e.Type == v1beta1.TypeProxy {
			goes = spare > 0
			spare--
		}
		if goes {
			out.Remove = append(out.Remove, i)
			continue
		}
		kept[e.Type+"/"+e.NodeName], stays[e.NodeName] = true, true
	}
	slices.Reverse(out.Remove)
	out.Add = w.missing(nodes, kept, len(w.Endpoints)-len(out.Remove))
	out.Ours = names(out.Add)
	for _, n := range w.Ours {
		if stays[n] {
			out.Ours = append(out.Ours, n)
		}
	}
	slices.Sort(out.Ours)
	out.Ours = slices.Compact(out.Ours)
	return out
}

func (w Want) count(kind string) int {
	n := 0
	for i := range w.Endpoints {
		if w.Endpoints[i].Type == kind {
			n++
		}
	}
	return n
}

// missing returns the entries that the nodes lack, within MaxEntries; have is the
// number of entries that stay.
func (w Want) missing(nodes []string, kept map[string]bool, have int) []v1beta1.Endpoint {
	nat := w.UnderNAT
	if len(w.Endpoints) > 0 {
		nat = w.Endpoints[0].UnderNAT
	}
	var add []v1beta1.Endpoint
	for _, n := range nodes {
		for _, t := range w.Types {
			// What a person listed for one mode is not meant for the other.
			if kept[t+"/"+n] || w.persons(n) || have+len(add) >= MaxEntries {
				continue
			}
			e := v1beta1.Endpoint{NodeName: n, Type: t, UnderNAT: nat}
			if t == v1beta1.TypeTunnel {
				e.Port = v1beta1.PortTunnel
			}
			add = append(add, e)
		}
	}
	return add
}

// persons reports whether the node's entries are a person's.
func (w Want) persons(node string) bool {
	return !slices.Contains(w.Ours, node) && slices.ContainsFunc(w.Endpoints, func(e v1beta1.Endpoint) bool {
		return e.NodeName == node
	})
}

// choose returns the nodes that should be listed by us or are listed by a person,
// in order.
func (w Want) choose() []string {
	var have []*Node // listed nodes of the domain, in order
	for _, name := range names(w.Endpoints) {
		if n := find(w.Nodes, name); n != nil {
			have = append(have, n)
		}
	}
	if w.anyPinned() {
		return w.pinned(have)
	}
	return w.ready(have)
}

func (w Want) anyPinned() bool {
	return slices.ContainsFunc(w.Nodes, func(n Node) bool { return n.Pinned })
}

// Entry names the entry of a node for one mode.
type Entry struct{ Type, Node string }

// Passing returns the entries that are listed only while they are active: those of
// nodes that were chosen before others were pinned.
func (w Want) Passing() map[Entry]bool {
	if !w.anyPinned() {
		return nil
	}
	w.Active = nil
	out := make(map[Entry]bool)
	for _, i := range Candidates(w).Remove {
		out[Entry{w.Endpoints[i].Type, w.Endpoints[i].NodeName}] = true
	}
	return out
}

// pinned takes the pinned nodes, those first that are listed, and keeps who is
// still active.
func (w Want) pinned(have []*Node) []string {
	var taken []*Node
	for _, n := range have {
		if n.Pinned && len(taken) < maxPinned {
			taken = append(taken, n)
		}
	}
	taken = w.fill(taken, maxPinned, func(n *Node) bool { return n.Pinned })
	return append(nodeNames(taken), w.extra(have, taken)...)
}

// ready takes Ready nodes, those first that are active or listed. Listed ones that
// are not Ready stay, and are replaced only when a single Ready one is left, so
// that nodes that restart one after the other change nothing.
func (w Want) ready(have []*Node) []string {
	var taken, resting []*Node
	slices.SortStableFunc(have, func(a, b *Node) int {
		return cmp.Compare(w.rank(a), w.rank(b))
	})
	for _, n := range have {
		switch {
		case !n.Ready:
			resting = append(resting, n)
		case len(taken) < maxChosen || w.persons(n.Name):
			taken = append(taken, n)
		}
	}
	if len(taken) < 2 || len(taken)+len(resting) < maxChosen {
		taken = w.fill(taken, maxChosen, func(n *Node) bool { return n.Ready })
	}
	resting = resting[:min(len(resting), max(0, maxPinned-len(taken)))]
	all := slices.Concat(taken, resting)
	return append(nodeNames(all), w.extra(have, all)...)
}

// rank puts persons' entries first, since they stay anyway, and then active ones.
func (w Want) rank(n *Node) int {
	switch {
	case w.persons(n.Name):
		return 0
	case slices.Contains(w.Active, n.Name):
		return 1
	default:
		return 2
	}
}

// extra returns the active nodes of the list that were not taken.
func (w Want) extra(have, taken []*Node) []string {
	var out []string
	for _, n := range have {
		if slices.Contains(w.Active, n.Name) && !slices.Contains(taken, n) {
			out = append(out, n.Name)
		}
	}
	return out
}

// fill adds nodes that fit until there are most, spread over zones; cordoned ones
// only for want of others.
func (w Want) fill(taken []*Node, most int, fits func(*Node) bool) []*Node {
	for len(taken) < most {
		zone := map[string]int{}
		for _, n := range taken {
			zone[n.Zone]++
		}
		var best *Node
		for i := range w.Nodes {
			n := &w.Nodes[i]
			if !fits(n) || slices.Contains(taken, n) {
				continue
			}
			if best == nil || less(n, best, zone) {
				best = n
			}
		}
		if best == nil {
			break
		}
		taken = append(taken, best)
	}
	return taken
}

// less reports whether a is the better candidate, given how many each zone has.
func less(a, b *Node, zone map[string]int) bool {
	if a.Cordoned != b.Cordoned {
		return b.Cordoned
	}
	if a.Ready != b.Ready {
		return a.Ready
	}
	return cmp.Or(cmp.Compare(zone[a.Zone], zone[b.Zone]), cmp.Compare(a.Name, b.Name)) < 0
}

func nodeNames(list []*Node) []string {
	var out []string
	for _, n := range list {
		out = append(out, n.Name)
	}
	return out
}

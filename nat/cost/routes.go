package cost

import (
	"cmp"
	"slices"
	"time"

	"corax/dataplane/key"
)

// MaxRelays is the depth used when Input.MaxRelays is zero.
const MaxRelays = 2

// Hub is a node that can be reached first. Relay reports whether it forwards for
// others; Cost is what its owner configured for using it.
type Hub struct {
	Key   key.Public
	Relay bool
	Cost  time.Duration
}

// Link is a measured link, with the same cost both ways.
type Link struct {
	From, To key.Public
	Cost     time.Duration
}

// Input is what [Routes] needs. Negative costs count as zero, and those above
// [Unknown] as Unknown. Links to anybody but Self, Peer and Hubs are ignored.
type Input struct {
	Self, Peer key.Public
	Hubs       []Hub
	Links      []Link
	Penalty    time.Duration // for each relay on the way
	MaxRelays  int           // zero: MaxRelays; at least 1
}

// Route is a way from Self to Peer through Hubs, in order; without any it is the
// direct link.
type Route struct {
	Hubs []key.Public
	Cost time.Duration
}

// Same reports whether two routes go through the same hubs.
func (r Route) Same(other Route) bool { return slices.Equal(r.Hubs, other.Hubs) }

// compare orders by cost, then by number of hubs, then by the hubs' keys.
func (r Route) compare(o Route) int {
	return cmp.Or(
		cmp.Compare(r.Cost, o.Cost),
		cmp.Compare(len(r.Hubs), len(o.Hubs)),
		slices.CompareFunc(r.Hubs, o.Hubs, compareKeys),
	)
}

func compareKeys(a, b key.Public) int {
	return slices.Compare(a[:], b[:])
}

// Routes returns the cheapest route through each first hub, and the direct link
// if Links has it, cheapest first. Equal costs are ordered by fewer relays, then
// by the lower keys, so everybody computes the same. The result is the caller's.
func Routes(in Input) []Route {
	g := newGraph(in)
	var out []Route
	if c, ok := g.link(in.Self, in.Peer); ok {
		out = append(out, Route{Cost: c})
	}
	for _, onward := range g.onward() {
		first := onward.Hubs[0]
		if c, ok := g.link(in.Self, first); ok {
			onward.Cost += c
			out = append(out, onward)
		}
	}
	slices.SortFunc(out, Route.compare)
	return out
}

// graph is the part of the input that can be on a route.
type graph struct {
	peer   key.Public
	relays []Hub // sorted by key; Cost includes the penalty
	links  map[[2]key.Public]time.Duration
	depth  int
}

func newGraph(in Input) *graph {
	g := &graph{peer: in.Peer, links: make(map[[2]key.Public]time.Duration, len(in.Links)), depth: in.MaxRelays}
	if g.depth <= 0 {
		g.depth = MaxRelays
	}
	for _, h := range in.Hubs {
		if h.Relay && h.Key != in.Self && h.Key != in.Peer {
			h.Cost = clamp(h.Cost) + clamp(in.Penalty)
			g.relays = append(g.relays, h)
		}
	}
	slices.SortFunc(g.relays, func(a, b Hub) int {
		return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(b.Cost, a.Cost))
	})
	g.relays = slices.CompactFunc(g.relays, func(a, b Hub) bool { return a.Key == b.Key })
	for _, l := range in.Links {
		ends := pair(l.From, l.To)
		g.links[ends] = max(g.links[ends], clamp(l.Cost))
	}
	return g
}

func clamp(d time.Duration) time.Duration { return min(max(d, 0), Unknown) }

func pair(a, b key.Public) [2]key.Public {
	if b.Less(a) {
		a, b = b, a
	}
	return [2]key.Public{a, b}
}

func (g *graph) link(a, b key.Public) (time.Duration, bool) {
	c, ok := g.links[pair(a, b)]
	return c, ok
}

// onward returns, for each relay that has one, the best way from that relay to
// the peer; Hubs[0] is the relay itself, and its own cost is included.
//
// It is Dijkstra's algorithm with a bound on the hops, which settles the relays
// layer by layer: the best way with n relays extends the best one with n-1. A
// best way never visits a relay twice, since no cost is negative and of equal
// ways the shorter one wins.
func (g *graph) onward() []Route {
	best := make(map[key.Public]Route, len(g.relays))
	for _, h := range g.relays {
		if c, ok := g.link(h.Key, g.peer); ok {
			best[h.Key] = Route{Hubs: []key.Public{h.Key}, Cost: h.Cost + c}
		}
	}
	for range g.depth - 1 {
		best = g.extend(best)
	}
	out := make([]Route, 0, len(best))
	for _, h := range g.relays {
		if r, ok := best[h.Key]; ok {
			out = append(out, r)
		}
	}
	return out
}

func (g *graph) extend(best map[key.Public]Route) map[key.Public]Route {
	next := make(map[key.Public]Route, len(g.relays))
	for _, h := range g.relays {
		r, known := best[h.Key]
		for _, via := range g.relays {
			rest, ok := best[via.Key]
			c, linked := g.link(h.Key, via.Key)
			if !ok || !linked || slices.Contains(rest.Hubs, h.Key) {
				continue
			}
			longer := Route{Hubs: append([]key.Public{h.Key}, rest.Hubs...), Cost: h.Cost + c + rest.Cost}
			if !known || longer.compare(r) < 0 {
				r, known = longer, true
			}
		}
		if known {
			next[h.Key] = r
		}
	}
	return next
}

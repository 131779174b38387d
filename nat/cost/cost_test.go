package cost

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane/key"
)

const ms = time.Millisecond

func name(b byte) key.Public { return key.Public{b} }

func TestEstimator(t *testing.T) {
	now := time.Unix(1, 0)
	var e Estimator
	if e.Cost() != Unknown || e.Loss() != 0 || e.RTT() != 0 {
		t.Errorf("zero value: %v %v %v", e.Cost(), e.Loss(), e.RTT())
	}
	// RFC 6298: SRTT 100; 7/8*100 + 1/8*180 = 110; VAR 50; 3/4*50 + 1/4*80 = 57.5.
	e.Sent(now)
	e.Answered(now, 100*ms)
	e.Answered(now, 180*ms)
	if e.RTT() != 110*ms || e.Deviation() != 57500*time.Microsecond {
		t.Errorf("RTT %v, deviation %v", e.RTT(), e.Deviation())
	}
	for _, step := range []struct {
		lost, answered int
		loss           float64
		penalty        time.Duration
	}{
		{1, 0, 1.0 / 3, 0}, // one is free
		{1, 0, 2.0 / 4, time.Second / 32},
		{0, 28, 2.0 / 32, time.Second / 32},
		{0, 30, 0, 0}, // the window moved on
		{32, 0, 1, time.Second * 31 / 32},
	} {
		for range step.lost {
			e.Lost(now)
		}
		rtt := e.RTT()
		for range step.answered {
			e.Answered(now, rtt)
		}
		if e.Loss() != step.loss || e.Cost() != e.RTT()+step.penalty {
			t.Errorf("%+v: loss %v, penalty %v", step, e.Loss(), e.Cost()-e.RTT())
		}
	}
	e.Answered(now, -time.Second)
	e.Answered(now, 1<<62)
	if e.RTT() < 0 || e.Cost() > Unknown {
		t.Errorf("after nonsense: %v, %v", e.RTT(), e.Cost())
	}
}

// brute tries every sequence of relays.
func brute(in Input) []Route {
	link := func(a, b key.Public) (time.Duration, bool) {
		best, ok := time.Duration(0), false
		for _, l := range in.Links {
			if l.From == a && l.To == b || l.From == b && l.To == a {
				best, ok = max(best, min(max(l.Cost, 0), Unknown)), true
			}
		}
		return best, ok
	}
	best := make(map[key.Public]Route)
	var out []Route
	var try func(at key.Public, way []key.Public, cost time.Duration)
	try = func(at key.Public, way []key.Public, cost time.Duration) {
		if c, ok := link(at, in.Peer); ok {
			r := Route{slices.Clone(way), cost + c}
			if len(way) == 0 {
				out = append(out, r)
			} else if b, ok := best[way[0]]; !ok || r.compare(b) < 0 {
				best[way[0]] = r
			}
		}
		if len(way) == in.MaxRelays {
			return
		}
		for _, h := range in.Hubs {
			c, ok := link(at, h.Key)
			if !ok || !h.Relay || h.Key == in.Self || h.Key == in.Peer || slices.Contains(way, h.Key) {
				continue
			}
			try(h.Key, append(slices.Clone(way), h.Key), cost+c+max(h.Cost, 0)+in.Penalty)
		}
	}
	try(in.Self, nil, 0)
	for _, r := range best {
		out = append(out, r)
	}
	slices.SortFunc(out, Route.compare)
	return out
}

func TestRoutesAgainstBruteForce(t *testing.T) {
	found := make(map[int]int) // by relays of the best
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 6))
		in := Input{Self: name(1), Peer: name(2), MaxRelays: 1 + rng.IntN(3), Penalty: time.Duration(rng.IntN(3)) * ms}
		nodes := []key.Public{name(1), name(2)}
		for i := range rng.IntN(6) {
			k := name(byte(10 + i))
			if rng.IntN(8) == 0 {
				k = name(byte(1 + rng.IntN(2))) // we, or the peer, are a hub
				if slices.ContainsFunc(in.Hubs, func(h Hub) bool { return h.Key == k }) {
					continue
				}
			}
			in.Hubs = append(in.Hubs, Hub{k, rng.IntN(5) > 0, time.Duration(rng.IntN(8)-2) * ms})
			nodes = append(nodes, k)
		}
		rng.Shuffle(len(in.Hubs), func(i, j int) { in.Hubs[i], in.Hubs[j] = in.Hubs[j], in.Hubs[i] })
		nodes = append(nodes, name(99)) // nobody on the way
		for range rng.IntN(20) {
			a, b := nodes[rng.IntN(len(nodes))], nodes[rng.IntN(len(nodes))]
			if a != b { // few costs, so that there are ties
				in.Links = append(in.Links, Link{a, b, time.Duration(rng.IntN(12)-1) * ms})
			}
		}
		if seed%4 == 0 { // a long way that is cheap
			last := name(1)
			for i := range in.Links {
				in.Links[i].Cost += 20 * ms
			}
			for _, h := range in.Hubs[:min(len(in.Hubs), 1+rng.IntN(3))] {
				in.Links = append(in.Links, Link{last, h.Key, 0})
				last = h.Key
			}
			in.Links = append(in.Links, Link{last, name(2), 0})
		}
		want, got := brute(in), Routes(in)
		if d := cmp.Diff(want, got); d != "" && len(want)+len(got) > 0 {
			t.Fatalf("seed %d: %s", seed, d)
		}
		if len(got) > 0 {
			found[len(got[0].Hubs)]++
		}
	}
	for n := range 4 {
		if found[n] < 5 {
			t.Errorf("only %d graphs whose best route has %d relays", found[n], n)
		}
	}
}

func TestRoutes(t *testing.T) {
	self, peer, a, b := name(1), name(2), name(10), name(11)
	hubs := []Hub{{a, true, 0}, {b, true, 0}}
	links := []Link{{self, a, 10 * ms}, {self, b, 80 * ms}, {a, b, 5 * ms}, {b, peer, 10 * ms}, {a, peer, 90 * ms}}
	in := Input{Self: self, Peer: peer, Hubs: hubs, Links: links, Penalty: 2 * ms}
	route := func(cost time.Duration, ks ...key.Public) Route { return Route{ks, cost} }
	for _, tt := range []struct {
		name   string
		change func(*Input)
		want   []Route
	}{
		{"two relays win", func(*Input) {}, []Route{route(29*ms, a, b), route(92*ms, b)}},
		{"one relay only", func(in *Input) { in.MaxRelays = 1 }, []Route{route(92*ms, b), route(102*ms, a)}},
		{
			"configured cost", func(in *Input) { in.Hubs = []Hub{{a, true, 0}, {b, true, time.Second}} },
			[]Route{route(102*ms, a), route(1092*ms, b)},
		},
		{"b forbids relaying", func(in *Input) { in.Hubs = []Hub{{a, true, 0}, {b, false, 0}} }, []Route{route(102*ms, a)}},
		{
			"direct", func(in *Input) { in.Links = append(links[:5:5], Link{peer, self, 28 * ms}) },
			[]Route{route(28 * ms), route(29*ms, a, b), route(92*ms, b)},
		},
		{
			"the worse of two reports counts", func(in *Input) { in.Links = append(links[:5:5], Link{b, a, 70 * ms}) },
			[]Route{route(92*ms, b), route(94*ms, a, b)},
		},
		{"no links", func(in *Input) { in.Links = nil }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := in
			tt.change(&in)
			if d := cmp.Diff(tt.want, Routes(in)); d != "" {
				t.Error(d)
			}
		})
	}
}

// BenchmarkRoutes is one pair in a cluster with 20 hubs that all know each other.
func BenchmarkRoutes(b *testing.B) {
	in := Input{Self: name(1), Peer: name(2), Penalty: ms}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range byte(20) {
		in.Hubs = append(in.Hubs, Hub{name(10 + i), true, 0})
		in.Links = append(in.Links, Link{name(1), name(10 + i), time.Duration(rng.IntN(100)) * ms},
			Link{name(10 + i), name(2), time.Duration(rng.IntN(100)) * ms})
		for j := range i {
			in.Links = append(in.Links, Link{name(10 + i), name(10 + j), time.Duration(rng.IntN(100)) * ms})
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		Routes(in)
	}
}

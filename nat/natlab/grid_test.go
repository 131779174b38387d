package natlab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"corax/nat/natlab"
	"corax/nat/path"
)

// pair is two edges with traffic between them, two hubs in the middle.
type pair struct {
	*sim
	a, b *peer
}

var (
	wanLink    = natlab.Link{Latency: 15 * time.Millisecond, Jitter: 2 * time.Millisecond}
	accessLink = natlab.Link{Latency: 5 * time.Millisecond}
)

// newPair builds the world and waits until the edges have their sessions.
func newPair(seed uint64, a, b siteKind, trace int) *pair {
	s := newSim(seed, wanLink, trace)
	h1, h2 := s.addHub(natlab.Link{}), s.addHub(natlab.Link{Latency: 3 * time.Millisecond})
	pr := &pair{sim: s}
	ea, eb := s.addEdge(s.addSite(a, accessLink), accessLink, h1, h2), s.addEdge(s.addSite(b, accessLink), accessLink, h1, h2)
	pr.a, pr.b = connect(ea, eb)
	s.lab.Run(10 * time.Second)
	return pr
}

// start begins traffic both ways, the second end a little later.
func (pr *pair) start(every, skew time.Duration) {
	pr.a.start(every)
	pr.lab.After(skew, func() { pr.b.start(every) })
}

func (pr *pair) direct() bool { return pr.a.way.Kind == path.Direct && pr.b.way.Kind == path.Direct }

// firstByte is when the slower end got its first packet.
func (pr *pair) firstByte() (time.Duration, bool) {
	x, okX := pr.a.traffic.first(&pr.b.traffic)
	y, okY := pr.b.traffic.first(&pr.a.traffic)
	return max(x, y), okX && okY
}

// explain is what a failure prints.
func (pr *pair) explain(seed uint64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, at %v\n", seed, pr.lab.Now().Sub(natlab.New(0).Now()))
	for _, p := range []*peer{pr.a, pr.b} {
		st := p.m.Status()
		fmt.Fprintf(&b, "edge%d (%v): %v, why %s %s, NAT %+v, %d probes\n", p.e.id, p.e.site.kind, st.Way, st.Why.Code(), st.Detail, p.e.local.NAT, st.Probes)
		for _, c := range st.Candidates {
			fmt.Fprintf(&b, "    %v %v: proven %v, rtt %v, sent %d, %s\n", c.Kind, c.Way, c.Proven, c.RTT, c.Sent, c.Why.Code())
		}
		for _, tr := range st.Transitions {
			fmt.Fprintf(&b, "    %.3f: %v -> %v: %s %s\n", tr.At.Sub(natlab.New(0).Now()).Seconds(), tr.From, tr.To, tr.Cause.Code(), tr.Detail)
		}
	}
	if pr.trace != nil {
		b.WriteString(pr.trace.String())
	}
	return b.String()
}

// TestGrid tries every pair of accesses: each is connected at once over the
// relay, and direct soon where that is possible.
func TestGrid(t *testing.T) {
	var grid strings.Builder
	for a := range siteKinds {
		for b := a; b < siteKinds; b++ {
			t.Run(a.String()+"+"+b.String(), func(t *testing.T) {
				seed := uint64(a)<<8 | uint64(b)
				pr := newPair(seed, a, b, 0)
				begin := pr.lab.Now()
				pr.start(100*time.Millisecond, 30*time.Millisecond)
				want := directPossible(a, b)
				direct := pr.lab.RunUntil(60*time.Second, pr.direct)
				took := pr.lab.Now().Sub(begin)
				first, connected := pr.firstByte()
				if !connected || first > time.Second {
					t.Errorf("first byte after %v (connected %v)\n%s", first, connected, pr.explain(seed))
				}
				if want && !direct {
					t.Errorf("not direct after %v\n%s", took, pr.explain(seed))
				}
				kind := pr.a.way.Kind.String()
				if direct {
					kind = fmt.Sprintf("direct %5.2fs", took.Seconds())
				}
				fmt.Fprintf(&grid, "%-18s %-18s first %4.0fms  %s\n", a, b, first.Seconds()*1000, kind)
			})
		}
	}
	t.Log("\n" + grid.String())
}

// TestSameNAT puts both ends into one LAN: they find each other there, behind
// whatever NAT, and though all LANs use the same addresses.
func TestSameNAT(t *testing.T) {
	for kind := fullCone; kind < siteKinds; kind++ {
		if kind == blocked {
			continue // a machine that is told that UDP is blocked probes nobody
		}
		t.Run(kind.String(), func(t *testing.T) {
			s := newSim(uint64(kind), wanLink, 0)
			h1, h2 := s.addHub(natlab.Link{}), s.addHub(natlab.Link{})
			st := s.addSite(kind, accessLink)
			pr := &pair{sim: s}
			pr.a, pr.b = connect(s.addEdge(st, natlab.Link{}, h1, h2), s.addEdge(st, natlab.Link{}, h1, h2))
			s.lab.Run(5 * time.Second)
			pr.start(100*time.Millisecond, 0)
			if !s.lab.RunUntil(10*time.Second, pr.direct) {
				t.Fatalf("not direct\n%s", pr.explain(uint64(kind)))
			}
			s.lab.Run(10 * time.Second)
			for _, p := range []*peer{pr.a, pr.b} {
				if a := p.way.To.Addr(); p.way.Kind != path.Direct || !a.IsPrivate() && a.Is4() {
					t.Errorf("edge%d uses %v, not the LAN", p.e.id, p.way)
				}
			}
		})
	}
}

// TestSequentialPairs reports and bounds how many pairs of two sequential NATs
// become direct by prediction.
func TestSequentialPairs(t *testing.T) {
	direct, total := 0, time.Duration(0)
	const tries = 100
	for seed := range uint64(tries) {
		pr := newPair(seed, sequential, sequential, 0)
		begin := pr.lab.Now()
		pr.start(100*time.Millisecond, time.Duration(pr.lab.Rand().IntN(500))*time.Millisecond)
		if pr.lab.RunUntil(60*time.Second, pr.direct) {
			direct++
			total += pr.lab.Now().Sub(begin)
		}
		if _, ok := pr.firstByte(); !ok {
			t.Errorf("seed %d: never connected\n%s", seed, pr.explain(seed))
		}
	}
	t.Logf("%d of %d direct, after %v in the mean", direct, tries, (total / time.Duration(max(direct, 1))).Round(time.Millisecond))
	if direct < 60 {
		t.Errorf("only %d of %d pairs became direct, want 60", direct, tries)
	}
}

// TestBirthday searches a port of a random NAT from behind NATs that let in
// only whom they sent to, one of them a Linux router whose ports can be spoiled.
func TestBirthday(t *testing.T) {
	for _, easy := range []siteKind{portRestricted, linuxOpen, double} {
		t.Run(easy.String(), func(t *testing.T) {
			direct, total := 0, time.Duration(0)
			const tries = 15
			for seed := range uint64(tries) {
				pr := newPair(seed, symmetric, easy, 0)
				begin := pr.lab.Now()
				pr.start(200*time.Millisecond, 0)
				if pr.lab.RunUntil(60*time.Second, pr.direct) {
					direct++
					total += pr.lab.Now().Sub(begin)
				} else {
					t.Errorf("not direct\n%s", pr.explain(seed))
				}
				pr.lab.Run(10 * time.Second)
				for _, p := range []*peer{pr.a, pr.b} {
					if n := len(p.opened); n > 1 {
						t.Errorf("seed %d: edge%d still has %d sockets of the search", seed, p.e.id, n)
					}
				}
			}
			t.Logf("%d of %d direct, after %v in the mean", direct, tries, (total / time.Duration(max(direct, 1))).Round(time.Millisecond))
		})
	}
}

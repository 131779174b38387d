//go:build linux

package nat_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

const (
	// firstByteWithin: the first packet may not be lost, TCP would send it
	// again after 1 s and then after 3 s.
	firstByteWithin = 2500 * time.Millisecond
	// directWithin covers the search for a random port: 2,500 probes at 100 a
	// second, and what comes before it.
	directWithin = 60 * time.Second
	// relayedFor is how long a pair that may stay relayed is given to show that
	// it can do better.
	relayedFor = 5 * time.Second
	// evidenceBlocks of a flow show which way the bytes take.
	evidenceBlocks = 25
)

// pairCase is two sites and what can be expected of them.
type pairCase struct {
	name   string
	a, b   lab.Kind
	sites  [2]lab.Site // names a and b
	direct bool        // must become direct
	within time.Duration
}

// pairResult is what a pair did.
type pairResult struct {
	kind      string        // of the path from a to b in the end
	firstByte time.Duration // 0: none
	direct    time.Duration // since the first packet; 0: never
	why       string
}

func (r pairResult) String() string {
	switch {
	case r.kind == "":
		return failed
	case r.direct > 0:
		return fmt.Sprintf("direct %.2f / %.1f", r.firstByte.Seconds(), r.direct.Seconds())
	default:
		return fmt.Sprintf("%s %.2f", r.kind, r.firstByte.Seconds())
	}
}

func pairOf(a, b lab.Kind) pairCase {
	c := pairCase{
		name: a.Name + " - " + b.Name, a: a, b: b, direct: a.Direct(b), within: directWithin,
		sites: [2]lab.Site{{Name: "a", NATs: a.NATs, V6: a.V6}, {Name: "b", NATs: b.NATs, V6: b.V6}},
	}
	if !c.direct {
		c.within = relayedFor
		if a.Name == "sequential" && b.Name == "sequential" {
			c.within = 4 * relayedFor // prediction is tried
		}
	}
	return c
}

// neighbours are pairs behind one router.
func neighbours() []pairCase {
	cone := lab.NAT{Mapping: lab.MapCone, V6: lab.V6Block}
	isolating := cone
	isolating.Hairpin, isolating.Isolate = true, true
	same := func(name string, nat lab.NAT, ownLAN bool) pairCase {
		return pairCase{
			name: name, direct: true, within: directWithin,
			sites: [2]lab.Site{{Name: "a", NATs: []lab.NAT{nat}}, {Name: "b", Behind: "a", OwnLAN: ownLAN}},
		}
	}
	return []pairCase{
		same("same LAN", cone, false),
		same("same LAN, random", lab.NAT{Mapping: lab.MapRandom, V6: lab.V6Block}, false),
		same("two LANs of one router", cone, true),
		same("two LANs, only by hairpin", isolating, true),
	}
}

// TestGrid connects every pair of the kinds of NAT, and pairs behind one NAT.
func TestGrid(t *testing.T) {
	if _, err := lab.Corax(); err != nil { // before several labs build it at once
		t.Fatal(err)
	}
	kinds := lab.Kinds()
	grid := &grid{kinds: kinds, results: make(map[string]pairResult)}
	var cases []pairCase
	for i, a := range kinds {
		for j, b := range kinds[i:] {
			c := pairOf(a, b)
			if j%2 == 1 { // so that each kind starts some pairs and waits in others
				c.sites[0], c.sites[1] = lab.Site{Name: "a", NATs: b.NATs, V6: b.V6}, lab.Site{Name: "b", NATs: a.NATs, V6: a.V6}
				c.a, c.b = b, a
			}
			cases = append(cases, c)
		}
	}
	cases = append(cases, neighbours()...)
	t.Run("pair", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				r := new(pairResult)
				defer func() { grid.set(c.name, *r) }() // also after a Fatal
				runPair(t, c, r)
			})
		}
	})
	var names []string
	for _, c := range neighbours() {
		names = append(names, c.name)
	}
	t.Log("seconds to the first byte / until direct\n" + grid.table(names))
	if *update {
		if err := grid.write(docFile, names); err != nil {
			t.Fatal(err)
		}
	}
}

// runPair sends the first packet between two sites and watches the path. What it
// finds is in r even when it ends early.
func runPair(t *testing.T, c pairCase, r *pairResult) {
	n := start(t, lab.InternetOptions{Sites: []lab.Site{{Name: "hub", Hub: true}, c.sites[0], c.sites[1]}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*directWithin)
	defer cancel()

	begin := time.Now()
	f := n.flow("a", "b")
	r.firstByte = time.Since(begin)
	if r.firstByte > firstByteWithin {
		t.Errorf("the first byte took %v", r.firstByte)
	}
	notDirect := n.awaitPath(c.within, "a", "b", "direct")
	if notDirect == nil {
		r.direct = time.Since(begin)
	}
	if err := n.evidence(ctx, f, notDirect == nil); err != nil {
		t.Error(err)
	}
	p := n.peer("a", "b")
	r.kind, r.why = p.Path.Kind, p.Path.Why
	if c.direct && notDirect != nil {
		t.Errorf("not direct: %v", notDirect)
	}
	n.judge(c, p)
	if result, err := f.Stop(); err != nil {
		t.Error(err)
	} else {
		t.Logf("%s; longest pause of the flow %v; %s", r, result.Longest.Round(time.Millisecond), r.why)
	}
}

// judge checks the kind of the path that a has to b.
func (n *network) judge(c pairCase, p *lab.StatusPeer) {
	n.t.Helper()
	want := []string{"direct"}
	switch {
	case c.direct:
	case c.a.Blocked:
		want = []string{"relay-tls"}
	case c.b.Blocked:
		want = []string{"relay"}
	default:
		want = []string{"relay", "direct"}
	}
	if !slices.Contains(want, p.Path.Kind) {
		n.t.Errorf("the path is %s, want %v", p.Path.Kind, want)
	}
	if p.Path.Kind != "direct" && p.Path.Why == "" {
		n.t.Error("nothing says why the path is not direct")
	}
}

// evidence looks at the wire of a: the blocks of a flow go to the hub when they
// are relayed, and not when they go directly.
func (n *network) evidence(ctx context.Context, f *lab.Flow, direct bool) error {
	hub := n.domain("hub").Gateway()
	hubAddrs := []netip.Addr{hub.IP}
	if a := hub.IP6(); a.IsValid() {
		hubAddrs = append(hubAddrs, a)
	}
	var mu sync.Mutex
	var viaHub, elsewhere int
	c, err := n.domain("a").Gateway().Capture("eth0", func(p lab.Frame) bool {
		if !p.Outgoing || p.Len < 1000 || p.Protocol != unix.IPPROTO_UDP && p.Protocol != unix.IPPROTO_TCP {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(hubAddrs, p.Dst) {
			viaHub++
		} else {
			elsewhere++
		}
		return true
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := moves(ctx, f, evidenceBlocks); err != nil {
		return err
	}
	c.Count() // everything up to now
	mu.Lock()
	defer mu.Unlock()
	// A few large ones are probes of the path MTU.
	if direct && viaHub >= elsewhere || !direct && elsewhere >= viaHub {
		return fmt.Errorf("direct %t, but %d packets went to the hub and %d elsewhere", direct, viaHub, elsewhere)
	}
	return nil
}

// grid collects results by name.
type grid struct {
	kinds []lab.Kind

	mu      sync.Mutex
	results map[string]pairResult
}

func (g *grid) set(name string, r pairResult) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.results[name] = r
}

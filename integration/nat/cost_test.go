//go:build linux

package nat_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

// chosenWithin is how long measuring a change may take: it must be told from jitter.
const chosenWithin = time.Minute

// twoHubs is two edges that cannot become direct, and two hubs.
func twoHubs(t *testing.T) *network {
	t.Helper()
	return prepare(t, lab.InternetOptions{Shaped: true, Sites: pairOfSites(random, random, "hub-a", "hub-b")()})
}

// awaitVia waits until both ends of a path use the relays, which each names from
// its own side.
func (n *network) awaitVia(t *testing.T, hubs ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), chosenWithin)
	defer cancel()
	back := slices.Clone(hubs)
	slices.Reverse(back)
	for _, way := range []struct {
		from, to string
		via      []string
	}{{"a", "b", hubs}, {"b", "a", back}} {
		err := n.agent(way.from).WaitStatus(ctx, func(s *lab.Status) error {
			p := s.Peer(way.to + "-gw")
			if p == nil {
				return fmt.Errorf("no peer %s", way.to)
			}
			var via []string
			for _, v := range p.Path.Via {
				via = append(via, strings.TrimSuffix(v, "-gw"))
			}
			if !slices.Equal(via, way.via) {
				return fmt.Errorf("from %s to %s: %s via %v, want %v; %s", way.from, way.to, p.Path.Kind, via, way.via, p.Path.Why)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%v\n%s", err, n.paths(way.from, way.to))
		}
	}
}

// between makes the packets between a domain's WAN link and another's late.
func (n *network) between(domain, other string, d time.Duration) {
	h, link := n.domain(domain).WANHost()
	s := lab.Shape{Delay: d}
	h.ShapeTo(link, netip.PrefixFrom(n.domain(other).WANAddr(), 32), lab.LinkConfig{Out: s, In: s})
}

// annotate writes the Gateway object of a domain again, with an annotation.
func (n *network) annotate(domain, name, value string) {
	n.t.Helper()
	d := n.domain(domain)
	d.Annotations = map[string]string{name: value}
	key := n.status(domain).PublicKey
	if err := n.Object(d, map[string]string{d.Gateway().Name: key}).Write(n.Gateways); err != nil {
		n.t.Fatal(err)
	}
}

// TestCheapestRelay has two hubs between two edges, and changes what they cost.
func TestCheapestRelay(t *testing.T) {
	n := twoHubs(t)
	n.delay("hub-b", 40*time.Millisecond)
	n.run()
	f := n.flow("a", "b")
	f.Reset()
	for _, step := range []struct {
		name  string
		cause func()
		via   string
	}{
		{"hub B is slow", func() {}, "hub-a"},
		{"hub A is slower", func() {
			n.delay("hub-a", 80*time.Millisecond)
			n.delay("hub-b", 10*time.Millisecond)
		}, "hub-b"},
		{"hub B loses one of five", func() {
			s := lab.Shape{Delay: 10 * time.Millisecond, Loss: 0.2}
			h, link := n.domain("hub-b").WANHost()
			h.Shape(link, lab.LinkConfig{Out: s, In: s})
			n.delay("hub-a", 15*time.Millisecond)
		}, "hub-a"},
		{"hub A has a price", func() {
			n.delay("hub-b", 10*time.Millisecond)
			n.annotate("hub-a", "corax.io/cost", "1000")
		}, "hub-b"},
		{"hub B relays no more", func() { n.annotate("hub-b", "corax.io/relay", "false") }, "hub-a"},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.cause()
			n.awaitVia(t, step.via)
		})
	}
	if _, err := f.Stop(); err != nil {
		t.Error(err)
	}
}

// TestTwoRelays has each edge near another hub.
func TestTwoRelays(t *testing.T) {
	n := twoHubs(t)
	n.between("a", "hub-b", 150*time.Millisecond)
	n.between("b", "hub-a", 150*time.Millisecond)
	n.run()
	f := n.flow("a", "b")
	n.awaitVia(t, "hub-a", "hub-b")
	rtt, err := n.pod("a").EchoTCP(t.Context(), n.at("b"), 100)
	if err != nil || rtt > 150*time.Millisecond {
		t.Errorf("a round trip over two near relays takes %v, %v", rtt, err)
	}
	// One relay is enough when both edges are near it.
	n.between("b", "hub-a", 0)
	n.awaitVia(t, "hub-a")
	if _, err := f.Stop(); err != nil {
		t.Error(err)
	}
}

// TestOnlyTwoRelays has two hubs, each of which only one edge can reach.
func TestOnlyTwoRelays(t *testing.T) {
	n := twoHubs(t)
	n.domain("a").Router.BlockAll(n.domain("hub-b").WANAddr())
	n.domain("b").Router.BlockAll(n.domain("hub-a").WANAddr())
	for _, a := range n.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, edge := range []struct{ name, hub string }{{"a", "hub-a-gw"}, {"b", "hub-b-gw"}} {
		if err := n.agent(edge.name).WaitStatus(ctx, lab.Reached(edge.hub)); err != nil {
			t.Fatal(err)
		}
	}
	f := n.flow("a", "b")
	n.awaitVia(t, "hub-a", "hub-b")
	if _, err := f.Stop(); err != nil {
		t.Error(err)
	}
}

// TestSoakNothingFlaps has two hubs that cost about the same, with a jitter of a
// fifth, for five minutes: the path may be improved once, and stays.
func TestSoakNothingFlaps(t *testing.T) {
	if os.Getenv("CORAX_SOAK") == "" {
		t.Skip("CORAX_SOAK is not set; nat/natlab has it on virtual time")
	}
	n := twoHubs(t)
	for _, hub := range []string{"hub-a", "hub-b"} {
		h, link := n.domain(hub).WANHost()
		s := lab.Shape{Delay: 20 * time.Millisecond, Jitter: 4 * time.Millisecond, Queue: 5000}
		h.Shape(link, lab.LinkConfig{Out: s, In: s})
	}
	n.run()
	f := n.flow("a", "b")
	if err := n.awaitPath(chosenWithin, "a", "b", anyRelay...); err != nil {
		t.Fatal(err)
	}
	last, moves := n.relays("a", "b"), 0
	for begin := time.Now(); time.Since(begin) < 5*time.Minute; pause(t, 100*time.Millisecond) {
		if via := n.relays("a", "b"); !slices.Equal(via, last) {
			t.Logf("after %v from %v to %v", time.Since(begin), last, via)
			last, moves = via, moves+1
		}
	}
	if moves > 1 {
		t.Errorf("the path moved %d times", moves)
	}
	if _, err := f.Stop(); err != nil {
		t.Error(err)
	}
}

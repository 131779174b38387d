//go:build linux

package nat_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	changeBytes = 200 << 20
	changeRate  = 20 << 20 // bytes a second, so that a change falls into the middle
	// lostAtMost is how long nothing may come back when a path changes.
	lostAtMost = time.Second
)

// change is something that happens to a path while a transfer runs.
type change struct {
	name   string
	sites  func() []lab.Site
	shaped bool
	before []string // kinds of the path before it
	cause  func(t *testing.T, n *network)
	after  []string // and after it, within the time
	within time.Duration
	// otherHub and otherAddress say what must have changed then: the hub that
	// relays, and where b reaches a.
	otherHub, otherAddress bool
	check                  func(t *testing.T, n *network)
}

func cone(f lab.Filtering) lab.NAT {
	return lab.NAT{Mapping: lab.MapCone, Filtering: f, V6: lab.V6Block}
}

func pairOfSites(a, b lab.NAT, hubs ...string) func() []lab.Site {
	if len(hubs) == 0 {
		hubs = []string{"hub"}
	}
	return func() []lab.Site {
		var s []lab.Site
		for _, h := range hubs {
			s = append(s, lab.Site{Name: h, Hub: true})
		}
		return append(s, lab.Site{Name: "a", NATs: []lab.NAT{a}}, lab.Site{Name: "b", NATs: []lab.NAT{b}})
	}
}

var (
	openable = pairOfSites(cone(lab.FilterPort), cone(lab.FilterPort))
	random   = lab.NAT{Mapping: lab.MapRandom, V6: lab.V6Block}
	direct   = []string{"direct"}
	relay    = []string{"relay"}
	anyRelay = []string{"relay", "relay-tls"}
)

func changes() []change {
	return []change{
		{
			name: "relay to direct", sites: openable,
			before: []string{"direct", "relay", "relay-tls"}, // it has begun with the first packet
			cause:  func(*testing.T, *network) {},
			after:  direct, within: 20 * time.Second,
			check: func(t *testing.T, n *network) {
				if out := n.paths("a", "b"); !strings.Contains(out, "relay") {
					t.Errorf("the history knows no relay:\n%s", out)
				}
			},
		},
		{
			name: "direct to relay", sites: openable, before: direct,
			cause: func(_ *testing.T, n *network) {
				n.domain("a").Router.Block(n.domain("b").WANAddr())
			},
			after: relay, within: 5 * time.Second,
		},
		{
			name: "NAT reboot", sites: openable, before: direct,
			cause: func(t *testing.T, n *network) {
				if err := n.domain("a").Router.Reboot(); err != nil {
					t.Error(err)
				}
			},
			after: direct, within: 30 * time.Second, otherAddress: true,
		},
		{
			name: "new WAN address", sites: openable, before: direct,
			cause: func(_ *testing.T, n *network) {
				n.domain("a").Router.Renumber(netip.MustParsePrefix("203.0.113.77/32"))
			},
			after: direct, within: 30 * time.Second, otherAddress: true,
			check: func(t *testing.T, n *network) {
				if at := n.peer("b", "a").Path.Endpoint; !strings.HasPrefix(at, "203.0.113.77:") {
					t.Errorf("b reaches a at %s", at)
				}
			},
		},
		{
			name: "hub killed, direct", sites: openable, before: direct,
			cause: func(t *testing.T, n *network) {
				if err := n.agent("hub").Kill(); err != nil {
					t.Error(err)
				}
			},
			after: direct, within: time.Second,
		},
		{
			name: "hub killed, relayed", sites: pairOfSites(random, random, "hub-a", "hub-b"), before: relay,
			cause: func(t *testing.T, n *network) {
				if err := n.agent(n.via("a", "b")).Kill(); err != nil {
					t.Error(err)
				}
			},
			after: relay, within: 5 * time.Second, otherHub: true,
		},
		{
			name: "hub A to hub B", sites: pairOfSites(random, random, "hub-a", "hub-b"), shaped: true, before: relay,
			cause: func(_ *testing.T, n *network) {
				n.delay(n.via("a", "b"), 60*time.Millisecond)
			},
			after: relay, within: 20 * time.Second, otherHub: true,
		},
		{
			name: "hub stopped", sites: pairOfSites(random, random, "hub-a", "hub-b"), before: relay,
			cause: func(t *testing.T, n *network) {
				if err := n.agent(n.via("a", "b")).Stop(); err != nil {
					t.Error(err)
				}
			},
			after: relay, within: 5 * time.Second, otherHub: true,
		},
		{
			name: "UDP blocked", sites: openable, before: direct,
			cause: func(_ *testing.T, n *network) {
				nat := cone(lab.FilterPort)
				nat.BlockUDP = true
				n.domain("a").Router.SetNAT(nat)
			},
			after: anyRelay, within: 20 * time.Second,
			check: func(t *testing.T, n *network) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if err := n.agent("a").WaitStatus(ctx, lab.OnPath("b-gw", "relay-tls")); err != nil {
					t.Error(err)
				}
			},
		},
	}
}

// via returns the domain of the only relay between two domains.
func (n *network) via(from, to string) string {
	n.t.Helper()
	via := n.relays(from, to)
	if len(via) != 1 {
		n.t.Fatalf("the path from %s to %s goes via %v, want one relay", from, to, via)
	}
	return via[0]
}

// relays returns the domains that status names as relays.
func (n *network) relays(from, to string) []string {
	n.t.Helper()
	var names []string
	for _, v := range n.peer(from, to).Path.Via {
		names = append(names, strings.TrimSuffix(v, "-gw"))
	}
	return names
}

// delay makes everything to and from a domain's WAN link late, by d each way.
func (n *network) delay(domain string, d time.Duration) {
	h, link := n.domain(domain).WANHost()
	s := lab.Shape{Delay: d, Queue: 5000}
	h.Shape(link, lab.LinkConfig{Out: s, In: s})
}

// paths runs `corax paths`.
func (n *network) paths(from, to string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	out, err := n.agent(from).Command(ctx, "paths", n.domain(to).Gateway().Name)
	if err != nil {
		n.t.Error(err)
	}
	return string(out)
}

// TestPathChange has a transfer run while the path changes under it: no byte is
// lost or changed, and for at most a second nothing comes through.
func TestPathChange(t *testing.T) {
	for _, c := range changes() {
		t.Run(c.name, func(t *testing.T) { c.run(t) })
	}
}

func (c change) run(t *testing.T) {
	n := start(t, lab.InternetOptions{Sites: c.sites(), Shaped: c.shaped})
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	a, b := n.pod("a"), n.pod("b")
	noise := n.noise()
	bulk, err := lab.StartBulk(ctx, a.Host, b.Host, netip.AddrPortFrom(b.IP, bulkPort), changeBytes, changeRate)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bulk.Close() }()
	beat, err := a.StartBeat(n.at("b"))
	if err != nil {
		t.Fatal(err)
	}
	defer beat.Stop()
	for _, what := range []*lab.Beat{beat, noise} {
		if err := what.WaitBack(ctx); err != nil {
			t.Fatal(err)
		}
		what.Reset()
	}
	if err := n.awaitPath(20*time.Second, "a", "b", c.before...); err != nil {
		t.Fatal(err)
	}
	moved := bulk.Moved()
	old := n.before()
	begin := time.Now()
	c.cause(t, n)
	if err := n.settle(ctx, c, old); err != nil {
		t.Error(err)
	}
	took := time.Since(begin)
	if c.check != nil {
		c.check(t, n)
	}
	if err := bulk.Wait(ctx); err != nil {
		t.Error(err)
	}
	lost, machine := beat.Stop(), noise.Stop()
	t.Logf("%d MiB before it, changed after %v, nothing for %v at most (machine %v), %d of %d beats lost",
		moved>>20, took.Round(time.Millisecond), lost.Longest.Round(time.Millisecond), machine.Longest.Round(time.Millisecond),
		lost.Sent-lost.Back, lost.Sent)
	if limit := lostAtMost + machine.Longest; lost.Longest > limit {
		t.Errorf("nothing came through for %v, at most %v is allowed", lost.Longest, limit)
	}
}

// before is what the status of both ends says of a path.
type before struct {
	via []string
	at  string // where b reaches a
}

func (n *network) before() before {
	return before{via: n.peer("a", "b").Path.Via, at: n.peer("b", "a").Path.Endpoint}
}

// settle waits until the path is as it should be after the change, which is not
// what the status said before it.
func (n *network) settle(ctx context.Context, c change, old before) error {
	ctx, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	a, b := n.domain("a").Gateway().Name, n.domain("b").Gateway().Name
	err := n.agent("a").WaitStatus(ctx, func(s *lab.Status) error {
		if err := lab.OnPath(b, c.after...)(s); err != nil {
			return err
		}
		if via := s.Peer(b).Path.Via; c.otherHub && slices.Equal(via, old.via) {
			return fmt.Errorf("the path still goes via %v", via)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n.agent("b").WaitStatus(ctx, func(s *lab.Status) error {
		if err := lab.OnPath(a, c.after...)(s); err != nil {
			return err
		}
		if at := s.Peer(a).Path.Endpoint; c.otherAddress && at == old.at {
			return fmt.Errorf("b still reaches a at %s", at)
		}
		return nil
	})
}

// noise starts a beat that no agent carries, between two hosts of the WAN: what
// it suffers is the machine's doing.
func (n *network) noise() *lab.Beat {
	n.t.Helper()
	addr := netip.MustParseAddr("203.0.113.1")
	if _, err := n.Internet.Serve(port, addr); err != nil {
		n.t.Fatal(err)
	}
	h := n.Lab.Host("noise")
	h.Attach(n.WAN, "eth0", netip.MustParsePrefix("203.0.113.250/24"))
	beat, err := h.StartBeat(netip.AddrPortFrom(addr, port))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { beat.Stop() })
	return beat
}

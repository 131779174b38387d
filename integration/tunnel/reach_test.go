//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"corax/integration/lab"
)

// noPingOut is left out where a gateway node has no TUN.
const noPingOut = "pings that a pod of that node sends: its host has no route for them"

const (
	reachPort  = 7000
	reachBytes = 10 << 20
)

// reacher is who sends: a pod, or a program on the host of a node.
type reacher struct {
	*lab.Host
	node   *lab.Node
	domain *lab.Domain
	host   bool
	pod    *lab.Pod // nil: a host
	// seen4 and seen6 are the addresses that others must see it with.
	seen4, seen6 netip.Addr
}

func (r reacher) seen(v4 bool) netip.Addr {
	if v4 {
		return r.seen4
	}
	return r.seen6
}

// kind says what r is, and where: crossings of one kind take the same way.
func (r reacher) kind() string {
	what, where := "pod", "plain node"
	if r.host {
		what = "host program"
	}
	if r.node == r.domain.Gateway() {
		where = "gateway node"
	}
	return what + " on a " + where
}

// reachers are the pods and the hosts of a domain's nodes. A host has the
// address of its pod bridge as source: the first of each subnet. So has everything
// that goes by the entry points of an agent.
func reachers(d *lab.Domain) []reacher {
	var all []reacher
	for _, n := range d.Nodes {
		h := reacher{Host: n.Host, node: n, domain: d, host: true}
		h.seen4, h.seen6 = bridgeOf(n, true), bridgeOf(n, false)
		all = append(all, h)
		for _, p := range n.Pods {
			r := reacher{Host: p.Host, node: n, domain: d, pod: p, seen4: p.IP, seen6: p.IP6}
			if n.Detoured() {
				r.seen4, r.seen6 = h.seen4, h.seen6
			}
			all = append(all, r)
		}
	}
	return all
}

// bridgeOf is an address of a node's pod bridge, the first of a subnet; zero when the
// node has none of that family.
func bridgeOf(n *lab.Node, v4 bool) netip.Addr {
	for _, s := range n.Subnets {
		if s.Addr().Is4() == v4 {
			return s.Masked().Addr().Next()
		}
	}
	return netip.Addr{}
}

// crossing is one way between two domains, to one address of a pod.
type crossing struct {
	from reacher
	to   reacher // a pod
	addr netip.Addr
}

func (c crossing) String() string {
	what := "pod"
	if c.from.host {
		what = "host"
	}
	return fmt.Sprintf("%s of %s to %s (%s)", what, c.from.node.Name, c.to.Name, c.addr)
}

// want are the sources that pods may see there, one for each that is behind addr: an
// agent without a TUN calls them from its host.
func (c crossing) want() []netip.Addr {
	v4 := c.addr.Is4()
	nodes := []*lab.Node{c.to.node}
	if c.to.node == nil { // a Service
		nodes = c.to.domain.Nodes
	}
	var all []netip.Addr
	for _, n := range nodes {
		if n.Detoured() {
			all = append(all, bridgeOf(n, v4))
		} else {
			all = append(all, c.from.seen(v4))
		}
	}
	return all
}

// crossings are all ways to a pod of another domain where one side is the
// cloud, which has the hub.
func crossings(t *lab.Topology) []crossing {
	var all []crossing
	cloud := t.Domains[0]
	for _, edge := range t.Domains[1:] {
		for _, way := range [][2]*lab.Domain{{cloud, edge}, {edge, cloud}} {
			for _, from := range reachers(way[0]) {
				for _, to := range reachers(way[1]) {
					if to.host {
						continue
					}
					all = append(all, crossing{from, to, to.pod.IP}, crossing{from, to, to.pod.IP6})
				}
			}
		}
	}
	return all
}

// crossingKinds picks one crossing of each kind, to and from the first edge
// with IPv4 and the last one with IPv6.
func crossingKinds(all []crossing) []crossing {
	kinds := make(map[string]int)
	var picked []crossing
	for _, c := range all {
		kind := fmt.Sprint(c.from.kind(), c.to.kind(), c.from.domain.Name == "cloud", c.addr.Is4())
		i, ok := kinds[kind]
		switch {
		case !ok:
			kinds[kind] = len(picked)
			picked = append(picked, c)
		case c.addr.Is6():
			picked[i] = c
		}
	}
	return picked
}

// eachCrossing calls f for every crossing, width at a time, and reports what
// fails.
func eachCrossing(t *testing.T, all []crossing, width int, f func(context.Context, crossing) error) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(width)
	for _, c := range all {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := f(ctx, c); err != nil {
				t.Errorf("%s: %v", c, err)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// serveReach starts a server on every pod.
func serveReach(t *testing.T, topo *lab.Topology) {
	t.Helper()
	for _, n := range topo.Nodes() {
		for _, p := range n.Pods {
			if _, err := p.Serve(reachPort); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func startAgents(t *testing.T, topo *lab.Topology, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := topo.Start(ctx, args...); err != nil {
		t.Fatal(err)
	}
}

// TestReach sends between all pods, and from all hosts to all pods, of two
// domains where one is the hub's, with ICMP, TCP and UDP. The CNI plugin of
// every node hides its pods from everybody else, and must not succeed.
func TestReach(t *testing.T) {
	for _, c := range []struct {
		name string
		v6   bool
	}{
		{"IPv4 underlay", false},
		{"IPv6 underlay", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			topo := lab.Standard(lab.ForTest(t), lab.Options{
				V6Underlay: c.v6,
				NoCapture:  true,
				Node:       func(n *lab.NodeConfig) { n.Masquerade = lab.MasqLeavingNode },
			})
			serveReach(t, topo)
			startAgents(t, topo)
			all := crossings(topo)
			if topo.Domains[1].Gateway().Detoured() {
				lab.LeftOut(t, noPingOut)
			}
			if want := 2 * 2 * (4*2 + 4*2); len(all) != want { // families x edges x (pods and hosts x pods, both ways)
				t.Fatalf("%d crossings, want %d", len(all), want)
			}
			strangers := watchStrangers(t, topo)
			eachCrossing(t, all, 8, reachSmall)
			strangers(t)
			eachCrossing(t, crossingKinds(all), 2, func(ctx context.Context, c crossing) error {
				_, err := c.from.Transfer(ctx, netip.AddrPortFrom(c.addr, reachPort), reachBytes)
				return err
			})
		})
	}
}

// reachSmall sends a little with every protocol, and asks with which source it
// arrived.
func reachSmall(ctx context.Context, c crossing) error {
	if !c.from.Detoured() {
		if _, err := c.from.PingUntil(ctx, c.addr, lab.PingOptions{}); err != nil {
			return err
		}
	}
	if c.from.host && !c.from.Detoured() && c.from.node.IP.Is4() == c.addr.Is4() {
		// Bound to the node's IP, which no Gateway lists: watchStrangers sees it.
		if _, err := c.from.PingUntil(ctx, c.addr, lab.PingOptions{From: c.from.node.IP}); err != nil {
			return fmt.Errorf("from the node's IP: %w", err)
		}
	}
	at := netip.AddrPortFrom(c.addr, reachPort)
	if _, err := c.from.EchoTCP(ctx, at, 10_000); err != nil {
		return err
	}
	if _, err := c.from.EchoUDP(ctx, at, 1200); err != nil {
		return err
	}
	return askSource(ctx, c, at)
}

// watchStrangers watches what arrives at every pod until the function that it
// returns is called, which fails the test when something had another source
// than those that pods and hosts should be seen with. Unlike the servers it also
// sees ICMP.
func watchStrangers(t *testing.T, topo *lab.Topology) func(*testing.T) {
	t.Helper()
	var known []netip.Addr
	for _, d := range topo.Domains {
		for _, r := range reachers(d) {
			known = append(known, r.seen4, r.seen6)
			if r.pod != nil { // what it answers is its own, whatever it is seen with
				known = append(known, r.pod.IP, r.pod.IP6)
			}
		}
	}
	var all []*lab.Capture
	for _, n := range topo.Nodes() {
		for _, p := range n.Pods {
			c, err := p.Capture("eth0", func(f lab.Frame) bool {
				return !f.Outgoing && (f.Dst == p.IP || f.Dst == p.IP6) &&
					!f.Src.IsLinkLocalUnicast() && !slices.Contains(known, f.Src)
			})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
	}
	return func(t *testing.T) {
		t.Helper()
		for _, c := range all {
			if n := c.Count(); n > 0 {
				f := c.Frames()[0]
				t.Errorf("%s got %d packets from strangers, one from %s, protocol %d", c.Host.Name, n, f.Src, f.Protocol)
			}
			if n := c.Lost(); n > 0 {
				t.Logf("%s: the capture lost %d frames", c.Host.Name, n)
			}
			c.Close()
		}
	}
}

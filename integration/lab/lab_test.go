//go:build linux

package lab

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// twoNodes is one LAN with two nodes and a pod on each.
func twoNodes(t *testing.T, change func(*NodeConfig)) (*Lab, [2]*Node) {
	l := ForTest(t)
	lan := l.LAN("lan", 1500)
	var nodes [2]*Node
	for i, name := range []string{"n1", "n2"} {
		cfg := NodeConfig{
			Name:         name,
			Subnets:      prefixes([]string{"10.244.1.0/24", "10.244.2.0/24"}[i], []string{"fd00:10:244:1::/64", "fd00:10:244:2::/64"}[i]),
			ClusterCIDRs: ClusterCIDRs(),
		}
		if change != nil {
			change(&cfg)
		}
		nodes[i] = l.Node(cfg)
		nodes[i].AttachNode(lan, prefixes([]string{"192.168.1.10/24", "192.168.1.11/24"}[i], []string{"fd00:192:168:1::10/64", "fd00:192:168:1::11/64"}[i])...)
		nodes[i].Pod("pod")
	}
	RoutePods(nodes[:]...)
	return l, nodes
}

func TestPodsOfOneDomain(t *testing.T) {
	_, nodes := twoNodes(t, func(cfg *NodeConfig) { cfg.ForwardDrop = true; cfg.RPFilter = 1; cfg.Masquerade = MasqLeavingCluster })
	a, b := nodes[0].Pods[0], nodes[1].Pods[0]
	ctx := ctxFor(t, 20*time.Second)
	srv, err := b.Serve(7000)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.Addr{b.IP, b.IP6} {
		if _, err := a.Ping(ctx, to, PingOptions{}); err != nil {
			t.Error(err)
		}
		at := netip.AddrPortFrom(to, 7000)
		if tr, err := a.Transfer(ctx, at, 10<<20); err != nil || tr.Up <= 0 || tr.Down <= 0 {
			t.Errorf("transfer: %+v, %v", tr, err)
		}
		if _, err := a.EchoUDP(ctx, at, 1200); err != nil {
			t.Error(err)
		}
		if _, err := a.EchoTCP(ctx, at, 3000); err != nil {
			t.Error(err)
		}
		want := a.IP
		if to.Is6() {
			want = a.IP6
		}
		for _, network := range []string{"tcp", "udp"} {
			if got, err := a.WhoAmI(ctx, network, at); err != nil || got != want {
				t.Errorf("%s: the server sees %s, %v; want %s", network, got, err, want)
			}
		}
	}
	if diff := cmp.Diff([]string{a.IP.String(), a.IP6.String()}, texts(srv.Seen())); diff != "" {
		t.Error(diff)
	}
}

func texts(addrs []netip.Addr) []string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return s
}

func TestMasquerade(t *testing.T) {
	for _, tt := range []struct {
		name string
		masq Masquerade
		pod  bool // seen as the pod by another node's pod
		lan  bool // seen as the pod by an address outside the cluster
	}{
		{"none", MasqNone, true, true},
		{"leaving the cluster", MasqLeavingCluster, true, false},
		{"leaving the node", MasqLeavingNode, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, nodes := twoNodes(t, func(cfg *NodeConfig) { cfg.Masquerade = tt.masq })
			ctx := ctxFor(t, 10*time.Second)
			a, b := nodes[0].Pods[0], nodes[1].Pods[0]
			for _, h := range []*Host{b.Host, nodes[1].Host} {
				if _, err := h.Serve(7000); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range []struct {
				at    netip.Addr
				asPod bool
			}{
				{b.IP, tt.pod},
				{b.IP6, tt.pod},
				{nodes[1].IP, tt.lan},
				{netip.MustParseAddr("fd00:192:168:1::11"), tt.lan},
			} {
				want := a.IP
				if c.at.Is6() {
					want = a.IP6
				}
				got, err := a.WhoAmI(ctx, "tcp", netip.AddrPortFrom(c.at, 7000))
				if err != nil || (got == want) != c.asPod {
					t.Errorf("%s sees %s, %v; pod %s visible: want %t", c.at, got, err, want, c.asPod)
				}
			}
		})
	}
}

func TestService(t *testing.T) {
	_, nodes := twoNodes(t, func(cfg *NodeConfig) { cfg.Masquerade = MasqLeavingCluster; cfg.ForwardDrop = true })
	ctx := ctxFor(t, 20*time.Second)
	a, b := nodes[0].Pods[0], nodes[1].Pods[0]
	if _, err := b.Serve(7000); err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.Addr{b.IP, b.IP6} {
		vip := netip.MustParseAddr("10.96.0.10")
		if to.Is6() {
			vip = netip.MustParseAddr("fd00:10:96::10")
		}
		// Nothing answers at the Service's address itself.
		nodes[0].Route(Route{Dst: netip.PrefixFrom(vip, vip.BitLen()), Via: nodes[1].addr(vip.Is4())})
		for _, proto := range []Protocol{TCP, UDP} {
			nodes[0].AddService(Service{IP: vip, Port: 80, Protocol: proto, Backends: []netip.AddrPort{netip.AddrPortFrom(to, 7000)}})
		}
		want := a.IP
		if to.Is6() {
			want = a.IP6
		}
		for _, network := range []string{"tcp", "udp"} {
			got, err := a.WhoAmI(ctx, network, netip.AddrPortFrom(vip, 80))
			if err != nil || got != want {
				t.Errorf("pod over %s: seen as %s, %v; want %s", network, got, err, want)
			}
			// The node's own program is masqueraded: seen as the node.
			got, err = nodes[0].WhoAmI(ctx, network, netip.AddrPortFrom(vip, 80))
			if node := nodes[0].addr(to.Is4()); err != nil || got != node {
				t.Errorf("node over %s: seen as %s, %v; want %s", network, got, err, node)
			}
		}
		if tr, err := a.Transfer(ctx, netip.AddrPortFrom(vip, 80), 1<<20); err != nil {
			t.Errorf("%+v, %v", tr, err)
		}
	}
}

func TestServiceWithSeveralBackends(t *testing.T) {
	_, nodes := twoNodes(t, nil)
	ctx := ctxFor(t, 20*time.Second)
	vip := netip.MustParseAddr("10.96.0.11")
	var servers []*Server
	s := Service{IP: vip, Port: 53, Protocol: UDP}
	for _, n := range nodes {
		srv, err := n.Pods[0].Serve(7000)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, srv)
		s.Backends = append(s.Backends, netip.AddrPortFrom(n.Pods[0].IP, 7000))
	}
	nodes[0].Route(Route{Dst: Default(vip), Via: nodes[1].IP})
	nodes[0].AddService(s)
	// The client is no backend: a hairpin would need masquerade.
	client := nodes[0].Pod("client")
	for range 64 { // all at one backend: 2 to the power of -63
		if _, err := client.EchoUDP(ctx, netip.AddrPortFrom(vip, 53), 100); err != nil {
			t.Fatal(err)
		}
	}
	for i, srv := range servers {
		if !slices.Contains(srv.Seen(), client.IP) {
			t.Errorf("backend %d saw nothing of the client", i)
		}
	}
}

func TestForwardDropBlocksOtherLinks(t *testing.T) {
	l, nodes := twoNodes(t, func(cfg *NodeConfig) { cfg.ForwardDrop = cfg.Name == "n2" })
	// Another link of n2, as a tunnel device would be one.
	side := l.LAN("side", 1500)
	other := l.Host("other")
	other.Attach(side, "eth0", prefixes("10.9.0.2/24")...)
	nodes[1].Attach(side, "tun0", prefixes("10.9.0.1/24")...)
	other.Route(Route{Dst: nodes[1].Subnets[0], Via: netip.MustParseAddr("10.9.0.1")})
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := other.Ping(short, nodes[1].Pods[0].IP, PingOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a new flow from another link passed: %v", err)
	}
	if _, err := other.Ping(ctxFor(t, 5*time.Second), netip.MustParseAddr("10.9.0.1"), PingOptions{}); err != nil {
		t.Errorf("the node itself: %v", err)
	}
}

func TestPingMTU(t *testing.T) {
	l, nodes := twoNodes(t, nil)
	_ = l
	a, b := nodes[0].Pods[0], nodes[1].Pods[0]
	nodes[0].SetMTU("eth0", 1300)
	nodes[1].SetMTU("eth0", 1300)
	for _, to := range []netip.Addr{b.IP, b.IP6} {
		from := nodes[0].Subnets[0].Addr().Next()
		if to.Is6() {
			from = nodes[0].Subnets[1].Addr().Next()
		}
		for range 2 { // the second time in spite of the path MTU learned
			_, err := a.Ping(ctxFor(t, 5*time.Second), to, PingOptions{Size: 1400, DF: true})
			e, ok := errors.AsType[*ICMPError](err)
			if !ok || !e.TooBig() || e.MTU != 1300 || e.From != from || e.Dst != to {
				t.Errorf("ping with DF to %s: %v; want too big with MTU 1300 from %s", to, err, from)
			}
		}
		for _, size := range []int{1300, 0} {
			if _, err := a.Ping(ctxFor(t, 5*time.Second), to, PingOptions{Size: size, DF: true}); err != nil {
				t.Error(err)
			}
		}
		// With IPv6 the first answer is lost: b has yet to learn the path MTU.
		if _, err := a.PingUntil(ctxFor(t, 5*time.Second), to, PingOptions{Size: 1400}); err != nil {
			t.Errorf("without DF: %v", err)
		}
		_, err := a.Ping(ctxFor(t, 5*time.Second), to, PingOptions{Size: 1501, DF: true})
		if !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("larger than the first link: %v", err)
		}
	}
}

func TestLookup(t *testing.T) {
	_, nodes := twoNodes(t, nil)
	a, b := nodes[0].Pods[0], nodes[1].Pods[0]
	names := map[string][]netip.Addr{"web.default.svc.cluster.local": {netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::10")}}
	if err := b.ServeDNS(b.IP, names); err != nil {
		t.Fatal(err)
	}
	ctx := ctxFor(t, 10*time.Second)
	for network, want := range map[string]string{"ip4": "10.96.0.10", "ip6": "fd00:10:96::10"} {
		got, err := a.Lookup(ctx, b.IP, network, "Web.default.svc.cluster.local")
		if err != nil || len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v, %v", network, got, err)
		}
	}
	if got, err := a.Lookup(ctx, b.IP, "ip4", "nobody.cluster.local"); err == nil {
		t.Errorf("an unknown name has %v", got)
	}
}

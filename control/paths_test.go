package control_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/control"
	"corax/control/api/v1beta1"
	"corax/dataplane"
	"corax/dataplane/key"
)

var hubKey, edgeKey = key.Public{1}, key.Public{2}

// hubAndEdge is a mesh of two domains: "hub" with the nodes h1, a hub, and h2,
// and "edge" with e1 behind a NAT.
func hubAndEdge() control.Snapshot {
	return control.Snapshot{EnableTunnel: true, EnableProxy: true, Gateways: []v1beta1.Gateway{{
		Metadata: v1beta1.ObjectMeta{Name: "hub", Annotations: map[string]string{}},
		Spec: v1beta1.GatewaySpec{Endpoints: []v1beta1.Endpoint{{
			NodeName: "h1", Type: v1beta1.TypeTunnel, PublicIP: "203.0.113.1",
			Config: map[string]string{v1beta1.ConfigPublicKey: hubKey.String()},
		}}},
		Status: v1beta1.GatewayStatus{Nodes: []v1beta1.NodeInfo{
			{NodeName: "h1", PrivateIP: "10.0.0.1", Subnets: []string{"10.244.1.0/24"}},
			{NodeName: "h2", PrivateIP: "10.0.0.2", Subnets: []string{"10.244.2.0/24"}},
		}},
	}, {
		Metadata: v1beta1.ObjectMeta{Name: "edge", Annotations: map[string]string{}},
		Spec: v1beta1.GatewaySpec{Endpoints: []v1beta1.Endpoint{{
			NodeName: "e1", Type: v1beta1.TypeTunnel, UnderNAT: true,
			Config: map[string]string{v1beta1.ConfigPublicKey: edgeKey.String()},
		}}},
		Status: v1beta1.GatewayStatus{Nodes: []v1beta1.NodeInfo{
			{NodeName: "e1", PrivateIP: "192.168.1.1", Subnets: []string{"10.244.3.0/24"}},
		}},
	}}}
}

// TestHubOfPlan checks that a hub and its peers read the hub's Gateway the same
// way.
func TestHubOfPlan(t *testing.T) {
	type hub struct {
		Hub, Relay bool
		Cost       time.Duration
		TLSPort    uint16 // in the edge's plan
	}
	for _, tt := range []struct {
		name   string
		change func(g *v1beta1.Gateway, e *v1beta1.Endpoint)
		want   hub
	}{
		{"plain", func(*v1beta1.Gateway, *v1beta1.Endpoint) {}, hub{true, true, 0, 10280}},
		{"relays", annotate(v1beta1.AnnotationRelay, "true"), hub{true, true, 0, 10280}},
		{"does not relay", annotate(v1beta1.AnnotationRelay, "false"), hub{true, false, 0, 10280}},
		{"a bad relay counts as absent", annotate(v1beta1.AnnotationRelay, "no"), hub{true, true, 0, 10280}},
		{"cost", annotate(v1beta1.AnnotationCost, "35"), hub{true, true, 35 * time.Millisecond, 10280}},
		{"a bad cost counts as absent", annotate(v1beta1.AnnotationCost, "35ms"), hub{true, true, 0, 10280}},
		{"TLS port", configure(v1beta1.ConfigTLSPort, "443"), hub{true, true, 0, 443}},
		{"a bad TLS port counts as absent", configure(v1beta1.ConfigTLSPort, "65536"), hub{true, true, 0, 10280}},
		{"by name", func(_ *v1beta1.Gateway, e *v1beta1.Endpoint) {
			e.PublicIP, e.Config[v1beta1.ConfigPublicHost] = "", "hub.example.org"
		}, hub{true, true, 0, 10280}},
		{"exposed behind a NAT", func(g *v1beta1.Gateway, e *v1beta1.Endpoint) {
			g.Spec.ExposeType, e.UnderNAT = v1beta1.ExposePublicIP, true
		}, hub{true, true, 0, 10280}},
		{"behind a NAT", func(g *v1beta1.Gateway, e *v1beta1.Endpoint) {
			g.Metadata.Annotations[v1beta1.AnnotationCost], e.UnderNAT = "35", true
			e.Config[v1beta1.ConfigTLSPort] = "443"
		}, hub{false, false, 35 * time.Millisecond, 0}},
		{"without an address", func(_ *v1beta1.Gateway, e *v1beta1.Endpoint) { e.PublicIP = "" }, hub{}},
		{"a standby", func(g *v1beta1.Gateway, e *v1beta1.Endpoint) {
			g.Spec.Endpoints = append([]v1beta1.Endpoint{{
				NodeName: "h2", Type: v1beta1.TypeTunnel, UnderNAT: true,
				Config: map[string]string{v1beta1.ConfigPublicKey: key.Public{3}.String()},
			}}, g.Spec.Endpoints...)
		}, hub{}},
	} {
		s := hubAndEdge()
		g := &s.Gateways[0]
		tt.change(g, &g.Spec.Endpoints[0])

		self := control.Plan(s, control.Local{Node: "h1", PublicKey: hubKey}).Config.Self
		got := hub{self.Hub, self.Relay, self.Cost, tt.want.TLSPort}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: the hub itself (-want +got):\n%s", tt.name, diff)
		}
		p := peerOf(t, control.Plan(s, control.Local{Node: "e1", PublicKey: edgeKey}), hubKey)
		got = hub{p.Hub, p.Relay, p.Cost, p.TLSPort}
		if diff := cmp.Diff(tt.want, got); diff != "" || p.SameDomain {
			t.Errorf("%s: peer of the edge, same domain %t (-want +got):\n%s", tt.name, p.SameDomain, diff)
		}
	}
}

// TestHubOfSameDomain: a second hub of the domain is a hub there too, reached
// over the LAN.
func TestHubOfSameDomain(t *testing.T) {
	s := hubAndEdge()
	g, other := &s.Gateways[0], key.Public{3}
	g.Spec.TunnelConfig = &v1beta1.TunnelConfiguration{Replicas: 2}
	g.Spec.Endpoints = append(g.Spec.Endpoints, v1beta1.Endpoint{
		NodeName: "h2", Type: v1beta1.TypeTunnel, PublicIP: "203.0.113.2",
		Config: map[string]string{v1beta1.ConfigPublicKey: other.String()},
	})
	d := control.Plan(s, control.Local{Node: "h1", PublicKey: hubKey})
	p := peerOf(t, d, other)
	if !d.Config.Self.Hub || !p.Hub || !p.Relay || p.TLSPort != 10280 || !p.SameDomain {
		t.Errorf("self %+v, peer %+v", d.Config.Self, p)
	}
	if want := netip.MustParseAddrPort("10.0.0.2:4500"); p.Endpoint != want {
		t.Errorf("endpoint %s, want %s", p.Endpoint, want)
	}
	if p := peerOf(t, d, edgeKey); p.Hub || p.Relay || p.SameDomain || p.TLSPort != 0 {
		t.Errorf("edge %+v", p)
	}
}

func TestForbidden(t *testing.T) {
	edge := control.Local{Node: "e1", PublicKey: edgeKey, NodeIP: netip.MustParseAddr("192.168.1.1")}
	node := control.Local{Node: "h2", PublicKey: key.Public{9}, NodeIP: netip.MustParseAddr("10.0.0.2")}
	for _, tt := range []struct {
		name   string
		change func(s *control.Snapshot, l *control.Local)
		local  control.Local
		want   []string
	}{
		{"edge", nil, edge, []string{"10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"}},
		{"plain node", nil, node, []string{"10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"}},
		{"in no Gateway", nil, control.Local{Node: "x"}, []string{"10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"}},
		{"a claim that is not in force", func(s *control.Snapshot, _ *control.Local) {
			subnets(s, 1, 0, "10.244.3.0/24", "10.244.0.0/16")
		}, edge, []string{"10.244.0.0/16"}}, // the wider one of "edge", which comes first by name
		{"no tunnel there", func(s *control.Snapshot, _ *control.Local) {
			s.Gateways[0].Spec.TunnelConfig = &v1beta1.TunnelConfiguration{}
		}, edge, []string{"10.244.3.0/24"}},
		{"not installed: our LAN", func(s *control.Snapshot, l *control.Local) {
			subnets(s, 0, 1, "192.168.0.0/16")
			l.Prefixes = []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}
		}, edge, []string{"10.244.1.0/24", "10.244.3.0/24"}},
		{"not installed: the hub's address", func(s *control.Snapshot, _ *control.Local) {
			subnets(s, 0, 0, "203.0.113.0/24")
		}, edge, []string{"10.244.2.0/24", "10.244.3.0/24"}},
		{"our LAN, and nothing is installed", func(s *control.Snapshot, l *control.Local) {
			subnets(s, 0, 1, "192.168.0.0/16")
			l.Prefixes = []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}
			s.Gateways[1].Metadata.Annotations[v1beta1.AnnotationRouted] = "true"
		}, edge, []string{"10.244.1.0/24", "10.244.3.0/24"}},
		{"installed: another domain's LAN", func(s *control.Snapshot, _ *control.Local) {
			subnets(s, 0, 1, "10.0.0.0/16")
		}, edge, []string{"10.0.0.0/16", "10.244.1.0/24", "10.244.3.0/24"}},
		{"routed: pods in the network of the nodes", func(s *control.Snapshot, _ *control.Local) {
			subnets(s, 0, 1, "10.0.0.0/16")
			s.Gateways[0].Metadata.Annotations[v1beta1.AnnotationRouted] = "true"
		}, edge, []string{"10.244.1.0/24", "10.244.3.0/24"}},
		{"own domain: the hub's address", func(s *control.Snapshot, _ *control.Local) {
			subnets(s, 1, 0, "10.244.3.0/24", "203.0.113.0/24")
		}, edge, []string{"10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"}},
		{"own domain: pods in the network of the nodes", func(s *control.Snapshot, _ *control.Local) {
			subnets(s, 0, 0, "10.0.0.0/16")
		}, node, []string{"10.244.2.0/24", "10.244.3.0/24"}},
	} {
		s, l := hubAndEdge(), tt.local
		if tt.change != nil {
			tt.change(&s, &l)
		}
		var got []string
		for _, p := range control.Plan(s, l).Config.Forbidden {
			got = append(got, p.String())
		}
		want := append(slices.Clone(tt.want), key.OverlayPrefix.String())
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func annotate(name, value string) func(*v1beta1.Gateway, *v1beta1.Endpoint) {
	return func(g *v1beta1.Gateway, _ *v1beta1.Endpoint) { g.Metadata.Annotations[name] = value }
}

func configure(name, value string) func(*v1beta1.Gateway, *v1beta1.Endpoint) {
	return func(_ *v1beta1.Gateway, e *v1beta1.Endpoint) { e.Config[name] = value }
}

func subnets(s *control.Snapshot, gateway, node int, subnets ...string) {
	s.Gateways[gateway].Status.Nodes[node].Subnets = subnets
}

func peerOf(t *testing.T, d control.Desired, k key.Public) dataplane.Peer {
	t.Helper()
	i := slices.IndexFunc(d.Config.Peers, func(p dataplane.Peer) bool { return p.PublicKey == k })
	if i < 0 {
		t.Fatalf("%s is no peer", k)
	}
	return d.Config.Peers[i]
}

// TestKeptHubsRelay has four hubs: an edge keeps a session with the three that
// relay, although the other one is the first by name.
func TestKeptHubsRelay(t *testing.T) {
	s := hubAndEdge()
	first := s.Gateways[0]
	s.Gateways = s.Gateways[1:]
	for i, name := range []string{"a", "b", "c", "d"} {
		g := first
		g.Metadata = v1beta1.ObjectMeta{Name: name, Annotations: map[string]string{}}
		if name == "a" {
			g.Metadata.Annotations[v1beta1.AnnotationRelay] = "false"
		}
		e := first.Spec.Endpoints[0]
		e.NodeName = name + "1"
		e.PublicIP = netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}).String()
		e.Config = map[string]string{v1beta1.ConfigPublicKey: key.Public{byte(10 + i)}.String()}
		g.Spec.Endpoints = []v1beta1.Endpoint{e}
		g.Status.Nodes = nil
		s.Gateways = append(s.Gateways, g)
	}
	plan := control.Plan(s, control.Local{Node: "e1", NodeIP: netip.MustParseAddr("192.168.1.1"), PublicKey: edgeKey})
	var kept []string
	for _, p := range plan.Config.Peers {
		if p.Keepalive > 0 {
			kept = append(kept, p.Gateway)
		}
	}
	slices.Sort(kept)
	if !slices.Equal(kept, []string{"b", "c", "d"}) {
		t.Errorf("the edge keeps sessions with %v", kept)
	}
}

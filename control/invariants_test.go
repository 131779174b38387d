package control_test

import (
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"corax/control"
	"corax/control/api/v1beta1"
	"corax/control/file"
	"corax/dataplane"
	"corax/dataplane/key"
)

// checkPlan says which promise of dataplane.Config a plan breaks.
func checkPlan(t *testing.T, d control.Desired) {
	t.Helper()
	c := d.Config
	sorted(t, "routes", c.Routes, func(a, b dataplane.Route) int { return a.Prefix.Compare(b.Prefix) })
	sorted(t, "host routes", c.Host, func(a, b dataplane.HostRoute) int { return a.Prefix.Compare(b.Prefix) })
	sorted(t, "VTEPs", c.VTEPs, func(a, b dataplane.VTEP) int { return a.Addr.Compare(b.Addr) })
	sorted(t, "peers", c.Peers, func(a, b dataplane.Peer) int { return slices.Compare(a.PublicKey[:], b.PublicKey[:]) })
	var allowed []netip.Prefix
	for _, p := range c.Peers {
		if p.PublicKey.IsZero() || p.AllowedIPs[0].Addr() != p.PublicKey.Overlay() {
			t.Errorf("peer %s/%s: key %s, allowed %v", p.Gateway, p.Node, p.PublicKey, p.AllowedIPs)
		}
		sorted(t, "allowed IPs", p.AllowedIPs[1:], netip.Prefix.Compare)
		allowed = append(allowed, p.AllowedIPs...)
	}
	for i, a := range allowed {
		for _, b := range allowed[:i] {
			if a.Overlaps(b) {
				t.Errorf("allowed IPs %s and %s overlap", a, b)
			}
		}
	}
	for _, r := range c.Routes {
		if r.Prefix != r.Prefix.Masked() {
			t.Errorf("route %s has host bits", r.Prefix)
		}
		if r.Via == dataplane.ViaVXLAN && !knows(c.VTEPs, r.VTEP) {
			t.Errorf("route %s leads to %s, which is no VTEP", r.Prefix, r.VTEP)
		}
		if r.Via == dataplane.ViaWireGuard && !allows(c.Peers, r.Peer, r.Prefix) {
			t.Errorf("route %s leads to a peer that does not own it", r.Prefix)
		}
	}
	for _, h := range c.Host {
		i := slices.IndexFunc(c.Routes, func(r dataplane.Route) bool { return r.Prefix == h.Prefix })
		if i < 0 || c.Routes[i].MTU != h.MTU || h.MTU < 576 {
			t.Errorf("host route %s with MTU %d has no such route", h.Prefix, h.MTU)
		}
		if h.Prefix.Contains(c.Self.NodeIP) {
			t.Errorf("host route %s contains this node", h.Prefix)
		}
	}
	sorted(t, "forbidden prefixes", c.Forbidden, netip.Prefix.Compare)
	for _, p := range append(prefixesOf(c.Host), key.OverlayPrefix) {
		if !slices.Contains(c.Forbidden, p) {
			t.Errorf("%s leads into the tunnel and may be probed", p)
		}
	}
	for _, p := range c.Peers {
		if slices.ContainsFunc(c.Forbidden, func(f netip.Prefix) bool { return f.Contains(p.Endpoint.Addr()) }) {
			t.Errorf("the endpoint %s of %s is forbidden", p.Endpoint, p.Node)
		}
		if p.Relay && !p.Hub || p.Hub != (p.TLSPort != 0) {
			t.Errorf("peer %s: hub %t, relay %t, TLS port %d", p.Node, p.Hub, p.Relay, p.TLSPort)
		}
	}
	if len(c.Peers) > 0 && !c.Self.Tunnel {
		t.Error("peers without a tunnel port")
	}
}

func prefixesOf(hs []dataplane.HostRoute) (ps []netip.Prefix) {
	for _, h := range hs {
		ps = append(ps, h.Prefix)
	}
	return ps
}

func sorted[T any](t *testing.T, what string, s []T, compare func(a, b T) int) {
	t.Helper()
	for i := 1; i < len(s); i++ {
		if compare(s[i-1], s[i]) >= 0 {
			t.Errorf("%s are not sorted, or repeat: %v, %v", what, s[i-1], s[i])
		}
	}
}

// TestSameOwner breaks random meshes at random and checks that all nodes that
// route a subnet into WireGuard name the same owner, whatever they are.
func TestSameOwner(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		s, hosts := randomMesh(r)
		for range r.IntN(8) {
			spoil(r, &s)
		}
		owner := map[netip.Prefix]key.Public{}
		for _, h := range hosts {
			d := control.Plan(s, h.local)
			checkPlan(t, d)
			for _, route := range d.Config.Routes {
				if route.Via != dataplane.ViaWireGuard || key.OverlayPrefix.Contains(route.Prefix.Addr()) {
					continue
				}
				if other, ok := owner[route.Prefix]; ok && other != route.Peer {
					t.Errorf("seed %d: %s: two owners of %s", seed, h.local.Node, route.Prefix)
				}
				owner[route.Prefix] = route.Peer
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// spoil makes one mistake that an operator could make.
func spoil(r *rand.Rand, s *control.Snapshot) {
	g := &s.Gateways[r.IntN(len(s.Gateways))]
	n := &g.Status.Nodes[r.IntN(len(g.Status.Nodes))]
	e := &g.Spec.Endpoints[r.IntN(len(g.Spec.Endpoints))]
	other := &s.Gateways[r.IntN(len(s.Gateways))]
	switch r.IntN(12) {
	case 0:
		n.PrivateIP = "nonsense"
	case 1:
		n.Subnets = append(n.Subnets, other.Status.Nodes[0].Subnets...)
	case 2:
		n.Subnets = []string{"10.0.0.0/14", "fd00::/16"}
	case 3:
		delete(e.Config, v1beta1.ConfigPublicKey)
	case 4:
		e.Config[v1beta1.ConfigPublicKey] = other.Spec.Endpoints[0].Config[v1beta1.ConfigPublicKey]
	case 5:
		g.Spec.TunnelConfig = &v1beta1.TunnelConfiguration{Replicas: r.IntN(5) - 1}
	case 6:
		g.Status.Nodes = append(g.Status.Nodes, other.Status.Nodes[0])
	case 7:
		g.Spec.Endpoints = append(g.Spec.Endpoints, other.Spec.Endpoints[0])
	case 8:
		g.Metadata.Annotations = map[string]string{v1beta1.AnnotationRouted: "true"}
	case 9:
		e.Type = v1beta1.TypeProxy
	case 10:
		n.PrivateIP = g.Status.Nodes[0].PrivateIP
	case 11:
		n.Subnets = append(n.Subnets, "192.168.0.0/16", "203.0.0.0/16")
	}
}

// TestPlanKeepsInput checks that Plan writes neither to the snapshot nor, later,
// to what it returned before.
func TestPlanKeepsInput(t *testing.T) {
	s, hosts := randomMesh(rand.New(rand.NewPCG(7, 7)))
	again, _ := randomMesh(rand.New(rand.NewPCG(7, 7)))
	for _, h := range hosts {
		slices.Reverse(control.Plan(s, h.local).Config.Self.Subnets)
		if got := control.Plan(s, h.local); !reflect.DeepEqual(got, h.plan) {
			t.Fatalf("%s: the same input gave another plan", h.local.Node)
		}
	}
	if !s.Equal(again) {
		t.Fatal("the snapshot was changed")
	}
}

// FuzzPlan plans over whatever YAML decodes to, for each node that it names.
func FuzzPlan(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		var all []byte
		names := newKeyNames()
		for _, file := range a.Files {
			if filepath.Ext(file.Name) == ".yaml" {
				all = append(append(all, "---\n"...), names.expand(file.Data)...)
			}
		}
		f.Add(all, uint16(1500))
	}
	f.Fuzz(func(t *testing.T, data []byte, mtu uint16) {
		s := control.Snapshot{EnableTunnel: true, EnableProxy: true}
		s.Gateways, s.Problems = file.Decode("fuzz.yaml", data)
		for _, g := range s.Gateways {
			for i, n := range g.Status.Nodes {
				if i == 4 {
					break
				}
				ip, _ := netip.ParseAddr(n.PrivateIP)
				checkPlan(t, control.Plan(s, control.Local{
					Node: n.NodeName, NodeIP: ip.WithZone(""), LinkMTU: int(mtu), PublicKey: key.Public{9},
				}))
			}
		}
	})
}

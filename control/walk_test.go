package control_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"corax/control"
	"corax/control/api/v1beta1"
	"corax/dataplane"
	"corax/dataplane/key"
)

// host is one node of a random mesh, and its plan.
type host struct {
	domain string
	local  control.Local
	plan   control.Desired
}

// randomMesh makes domains without mistakes: several active endpoints, standbys,
// claims, hubs and edges, the same LAN in every other domain. When status is false the
// agents have to elect.
func randomMesh(r *rand.Rand) (control.Snapshot, []*host) {
	s := control.Snapshot{EnableTunnel: true, EnableProxy: r.IntN(2) == 0}
	var hosts []*host
	status := r.IntN(2) == 0
	var claims []control.Claim
	for d := range 2 + r.IntN(4) {
		g := v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{Name: fmt.Sprintf("d%d", d)}}
		nodes := 1 + r.IntN(6)
		listed := 1 + r.IntN(nodes)
		active := 1 + r.IntN(listed)
		g.Spec.TunnelConfig = &v1beta1.TunnelConfiguration{Replicas: active}
		nat := r.IntN(2) == 0
		for n := range nodes {
			name := fmt.Sprintf("d%dn%d", d, n)
			ip := netip.AddrFrom4([4]byte{192, 168, byte(d % 2), byte(n + 1)})
			k := key.Public{1, byte(d), byte(n)}
			subnets := []string{fmt.Sprintf("10.%d.%d.0/24", d, n)}
			if r.IntN(2) == 0 {
				subnets = append(subnets, fmt.Sprintf("fd00:%x:%x::/64", d, n))
			}
			g.Status.Nodes = append(g.Status.Nodes, v1beta1.NodeInfo{NodeName: name, PrivateIP: ip.String(), Subnets: subnets})
			hosts = append(hosts, &host{domain: g.Metadata.Name, local: control.Local{Node: name, NodeIP: ip, PublicKey: k}})
			if n >= listed {
				continue
			}
			e := v1beta1.Endpoint{
				NodeName: name, Type: v1beta1.TypeTunnel, UnderNAT: nat,
				Config: map[string]string{v1beta1.ConfigPublicKey: k.String()},
			}
			if !nat {
				e.PublicIP = fmt.Sprintf("203.0.%d.%d", d, n+1)
			}
			g.Spec.Endpoints = append(g.Spec.Endpoints, e)
			if status && n >= listed-active {
				g.Status.ActiveEndpoints = append(g.Status.ActiveEndpoints, v1beta1.Endpoint{NodeName: name, Type: v1beta1.TypeTunnel})
			}
		}
		s.Gateways = append(s.Gateways, g)
		if r.IntN(2) == 0 {
			n := r.IntN(listed) // a listed endpoint has taken over alone
			claims = append(claims, control.Claim{
				Gateway: g.Metadata.Name, Epoch: 1, From: key.Public{1, byte(d), byte(n)}, Active: []string{fmt.Sprintf("d%dn%d", d, n)},
			})
		}
	}
	for _, h := range hosts {
		h.local.Claims = claims
		h.plan = control.Plan(s, h.local)
	}
	return s, hosts
}

// TestWalk sends a packet from every node's pods to those of every node of
// another domain through the plans of all, hop by hop, with the checks that the
// dataplane makes at each.
func TestWalk(t *testing.T) {
	for seed := range uint64(25) {
		_, hosts := randomMesh(rand.New(rand.NewPCG(seed, 1)))
		for _, from := range hosts {
			if len(from.plan.Problems) > 0 {
				t.Fatalf("seed %d: problems in a healthy mesh: %v", seed, from.plan.Problems)
			}
			for _, to := range hosts {
				if from.domain == to.domain {
					continue
				}
				for _, src := range from.plan.Config.Self.Subnets {
					for _, dst := range to.plan.Config.Self.Subnets {
						if err := walk(hosts, from, to, src, dst); err != nil {
							t.Fatalf("seed %d: %s to %s: %v", seed, from.local.Node, to.local.Node, err)
						}
					}
				}
			}
		}
	}
}

func walk(hosts []*host, from, to *host, src, dst netip.Prefix) error {
	if !slices.ContainsFunc(from.plan.Config.Host, func(h dataplane.HostRoute) bool { return h.Prefix == dst }) {
		return fmt.Errorf("the kernel does not send %s into the agent", dst)
	}
	at := from
	for range 6 {
		c := at.plan.Config
		i := slices.IndexFunc(c.Routes, func(r dataplane.Route) bool { return r.Prefix == dst })
		if i < 0 {
			return fmt.Errorf("%s has no route to %s", at.local.Node, dst)
		}
		route := c.Routes[i]
		var next *host
		switch route.Via {
		case dataplane.ViaTUN:
			if at != to {
				return fmt.Errorf("%s keeps it", at.local.Node)
			}
			return nil
		case dataplane.ViaVXLAN:
			next = find(hosts, func(h *host) bool { return h.domain == at.domain && h.local.NodeIP == route.VTEP })
			if next == nil || !accepts(next.plan.Config.VTEPs, at.local.NodeIP, src) || !knows(c.VTEPs, route.VTEP) {
				return fmt.Errorf("%s drops %s from %s by VXLAN", route.VTEP, src, at.local.Node)
			}
		case dataplane.ViaWireGuard:
			next = find(hosts, func(h *host) bool { return h.local.PublicKey == route.Peer })
			if next == nil || !allows(c.Peers, route.Peer, dst) || !allows(next.plan.Config.Peers, at.local.PublicKey, src) {
				return fmt.Errorf("%s is dropped between %s and its owner", src, at.local.Node)
			}
		default:
			return fmt.Errorf("%s drops it: %s", at.local.Node, route.Via)
		}
		at = next
	}
	return fmt.Errorf("a loop at %s", at.local.Node)
}

func find(hosts []*host, f func(*host) bool) *host {
	if i := slices.IndexFunc(hosts, f); i >= 0 {
		return hosts[i]
	}
	return nil
}

func knows(vs []dataplane.VTEP, addr netip.Addr) bool {
	return slices.ContainsFunc(vs, func(v dataplane.VTEP) bool { return v.Addr == addr })
}

func accepts(vs []dataplane.VTEP, addr netip.Addr, src netip.Prefix) bool {
	return slices.ContainsFunc(vs, func(v dataplane.VTEP) bool {
		return v.Addr == addr && slices.Contains(v.Sources, src)
	})
}

func allows(ps []dataplane.Peer, k key.Public, p netip.Prefix) bool {
	return slices.ContainsFunc(ps, func(e dataplane.Peer) bool {
		return e.PublicKey == k && slices.Contains(e.AllowedIPs, p)
	})
}

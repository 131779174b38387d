//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"corax/integration/lab"
)

const serviceBytes = 200_000

// remoteService is a Service with a name, in both families, whose endpoints are
// the pods of one domain.
type remoteService struct {
	name         string
	addrs        []netip.Addr // one per family
	port, target uint16
	domain       *lab.Domain
}

func (s remoteService) addr(v4 bool) netip.Addr {
	i := slices.IndexFunc(s.addrs, func(a netip.Addr) bool { return a.Is4() == v4 })
	return s.addrs[i]
}

// add lays the Service on every node, for TCP and UDP.
func (s remoteService) add(topo *lab.Topology, masqueradeAll bool) {
	for _, addr := range s.addrs {
		var backends []netip.AddrPort
		for _, n := range s.domain.Nodes {
			ip := n.Pods[0].IP
			if addr.Is6() {
				ip = n.Pods[0].IP6
			}
			backends = append(backends, netip.AddrPortFrom(ip, s.target))
		}
		for _, p := range []lab.Protocol{lab.TCP, lab.UDP} {
			topo.AddService(lab.Service{
				IP: addr, Port: s.port, Protocol: p, Backends: backends, MasqueradeAll: masqueradeAll,
			})
		}
	}
}

// clusterDNS is the cluster's name server: a Service with its endpoint on a
// plain node of the cloud.
func clusterDNS(t *testing.T, topo *lab.Topology, services []remoteService) remoteService {
	t.Helper()
	dns := remoteService{
		name: "kube-dns", port: 53, target: 53,
		addrs: addrsOf("10.96.0.10", "fd00:10:96::a"),
		// Its only endpoint.
		domain: &lab.Domain{Nodes: topo.Domains[0].Nodes[1:2]},
	}
	names := make(map[string][]netip.Addr)
	for _, s := range services {
		names[s.name] = s.addrs
	}
	pod := dns.domain.Nodes[0].Pods[0]
	for _, at := range []netip.Addr{pod.IP, pod.IP6} {
		if err := pod.ServeDNS(at, names); err != nil {
			t.Fatal(err)
		}
	}
	return dns
}

func addrsOf(s ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range s {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// unfriendly gives the nodes what real ones have: strict reverse path filters,
// and a FORWARD policy of drop with rules that know nothing of tunnels. Between
// them every combination is there, on gateway nodes and on plain ones.
func unfriendly(n *lab.NodeConfig) {
	n.Masquerade = lab.MasqLeavingNode
	switch n.Name {
	case "cloud-gw", "edge-a-1":
		n.ForwardDrop, n.RPFilter = true, 1
	case "cloud-1", "edge-b-gw":
		n.ForwardDrop = true
	case "edge-a-gw":
		n.RPFilter = 1
	}
}

// TestService calls Services by name, from every pod and every host, whose
// endpoints are in another domain: kube-proxy rewrites the destination, so what
// is steered before that never arrives.
func TestService(t *testing.T) {
	for _, c := range []struct {
		name          string
		masqueradeAll bool
	}{
		{"masquerade hosts", false},
		{"masquerade all", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			topo := lab.Standard(lab.ForTest(t), lab.Options{NoCapture: true, Node: unfriendly})
			services := []remoteService{
				{"web.cloud.svc.cluster.local", addrsOf("10.96.0.80", "fd00:10:96::80"), 80, reachPort, topo.Domains[0]},
				{"web.edge-a.svc.cluster.local", addrsOf("10.96.0.81", "fd00:10:96::81"), 80, reachPort, topo.Domains[1]},
				{"web.edge-b.svc.cluster.local", addrsOf("10.96.0.82", "fd00:10:96::82"), 80, reachPort, topo.Domains[2]},
			}
			dns := clusterDNS(t, topo, services)
			for _, s := range append(services, dns) {
				s.add(topo, c.masqueradeAll)
			}
			serveReach(t, topo)
			startAgents(t, topo)
			if topo.Domains[1].Gateway().Detoured() {
				lab.LeftOut(t, "calls from pods of that node: kube-proxy's rules there do not lead into the agent")
			}
			eachCrossing(t, serviceCrossings(topo, services), 8, func(ctx context.Context, x crossing) error {
				i := slices.IndexFunc(services, func(s remoteService) bool { return slices.Contains(s.addrs, x.addr) })
				return callService(ctx, x, services[i], dns)
			})
		})
	}
}

// serviceCrossings are the ways from every pod and host to each Service whose
// endpoints are in another domain, one of the two the cloud.
func serviceCrossings(topo *lab.Topology, services []remoteService) []crossing {
	var all []crossing
	for _, s := range services {
		for _, d := range topo.Domains {
			if d == s.domain || d != topo.Domains[0] && s.domain != topo.Domains[0] {
				continue
			}
			for _, from := range reachers(d) {
				if from.Detoured() {
					continue
				}
				for _, addr := range s.addrs {
					to := reacher{Host: &lab.Host{Name: s.name}, domain: s.domain}
					all = append(all, crossing{from, to, addr})
				}
			}
		}
	}
	return all
}

func callService(ctx context.Context, c crossing, s, dns remoteService) error {
	v4 := c.addr.Is4()
	network := "ip4"
	if !v4 {
		network = "ip6"
	}
	server := dns.addr(v4)
	if c.from.Host == dns.domain.Nodes[0].Pods[0].Host {
		server = c.from.seen(v4) // a Service that leads back to its client is the CNI plugin's business
	}
	addrs, err := c.from.Lookup(ctx, server, network, s.name)
	if err != nil {
		return err
	}
	if !slices.Equal(addrs, []netip.Addr{c.addr}) {
		return fmt.Errorf("%s resolves to %v, want %s", s.name, addrs, c.addr)
	}
	at := netip.AddrPortFrom(addrs[0], s.port)
	if _, err := c.from.Transfer(ctx, at, serviceBytes); err != nil {
		return err
	}
	// Every flow takes one of the endpoints by chance.
	for range 4 {
		if err := askSource(ctx, c, at); err != nil {
			return err
		}
	}
	_, err = c.from.EchoUDP(ctx, at, 1200)
	return err
}

// askSource asks with which source TCP and UDP arrive.
func askSource(ctx context.Context, c crossing, at netip.AddrPort) error {
	for _, network := range []string{"tcp", "udp"} {
		seen, err := c.from.WhoAmI(ctx, network, at)
		if err != nil {
			return err
		}
		if !slices.Contains(c.want(), seen) {
			return fmt.Errorf("%s arrives from %s, want one of %s", network, seen, c.want())
		}
	}
	return nil
}

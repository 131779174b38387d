package control

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"

	"golang.org/x/crypto/blake2s"

	"corax/control/api/v1beta1"
	"corax/dataplane/key"
)

// Ports of proxy mode that hold where the objects do not say otherwise.
const (
	portKubelet  = 10250
	portProxyTLS = 10281
)

// Proxy is what proxy mode needs of the objects, for one node. The zero Proxy is
// that of a node while proxy mode is off.
type Proxy struct {
	// Front says that this node is an active proxy endpoint of an exposed Gateway:
	// it takes requests in.
	Front bool
	// Edge says that this node serves streams for its domain: it is active there,
	// in either layer.
	Edge bool
	// Nodes are those of all domains that take part, by name.
	Nodes []ProxyNode
	// Callers, of an edge, are the overlay addresses that may ask: those of gateway
	// nodes of exposed Gateways of other domains; sorted.
	Callers []netip.Addr
	// Ports, of an edge, are the ports that may be dialled; sorted.
	Ports []uint16
	// PortMap, of a front, leads from a port that it listens on to one of nodes.
	PortMap map[uint16]uint16
	// Problems are those of proxy mode alone; sorted.
	Problems []Problem
}

// ProxyNode is a node whose ports can be reached by its name.
type ProxyNode struct {
	Name    string
	Gateway string
	IP      netip.Addr
	// Own says that the node is of this node's domain, and is dialled plainly.
	Own bool
	// Via are the overlay addresses of the gateway nodes of its domain, in the order
	// to try: the node itself, then by rendezvous hash, so that the nodes of a domain
	// are spread over its gateway nodes. Empty for an own node, and when none is active.
	Via []netip.Addr
	// Ports are those that may be asked for; sorted, shared by the nodes of a domain,
	// as are HTTP and HTTPS: those of them of which its Gateway says what they speak.
	Ports       []uint16
	HTTP, HTTPS []uint16
}

// PlanProxy works out what proxy mode means on one node. It is pure, as [Plan] is,
// and of the same view of who is active.
func PlanProxy(s Snapshot, l Local) Proxy {
	if !s.EnableProxy {
		return Proxy{}
	}
	p := newPlanner(s, l)
	var out Proxy
	for _, d := range p.mesh.domains {
		if d.proxied() {
			out.Nodes = append(out.Nodes, p.proxyNodes(d)...)
		}
	}
	sort.Slice(out.Nodes, func(i, j int) bool { return out.Nodes[i].Name < out.Nodes[j].Name })
	if d := p.domain; d != nil && d.proxied() && p.member != nil {
		out.Edge = p.member.gateway()
		out.Front = d.gw.Exposed() && p.member.active[v1beta1.TypeProxy]
	}
	if out.Edge {
		out.Callers, out.Ports = p.proxyCallers(), p.domain.proxyPorts()
	}
	if out.Front {
		p.planFront(&out)
	}
	out.Problems = SortProblems(p.problems)
	return out
}

// proxied reports whether the domain takes part in proxy mode, which is on.
func (d *domain) proxied() bool { return d.replicas(v1beta1.TypeProxy) > 0 }

// proxyNodes lists the nodes of a domain.
func (p *planner) proxyNodes(d *domain) []ProxyNode {
	ports := d.proxyPorts()
	http, https := d.listedPorts()
	http, https = sortPorts(http), sortPorts(https)
	var via map[string][]netip.Addr
	var names []string
	if d != p.domain {
		via = map[string][]netip.Addr{}
		for _, e := range d.members {
			if e.gateway() && !e.key.IsZero() {
				names = append(names, e.node)
				via[e.node] = e.overlays()
			}
		}
	}
	var all []ProxyNode
	for _, n := range d.nodes {
		x := ProxyNode{Name: n.name, Gateway: d.name, IP: n.addr, Own: d == p.domain, Ports: ports, HTTP: http, HTTPS: https}
		for _, name := range byHash(n.name, names) {
			x.Via = append(x.Via, via[name]...)
		}
		all = append(all, x)
	}
	return all
}

// overlays returns the overlay addresses of a member: that of the key in use, then
// that of the other one, while it changes its key.
func (e *member) overlays() []netip.Addr {
	var all []netip.Addr
	for _, k := range []key.Public{e.key, e.other} {
		if !k.IsZero() {
			all = append(all, k.Overlay())
		}
	}
	return all
}

// byHash returns the gateway nodes in the order in which a node tries them: itself,
// then by falling rendezvous hash, as [Home].
func byHash(node string, names []string) []string {
	hash := func(name string) []byte {
		h := blake2s.Sum256([]byte(node + "\x00" + name))
		return h[:]
	}
	sorted := slices.Clone(names)
	sort.Slice(sorted, func(i, j int) bool {
		a, b := sorted[i], sorted[j]
		return cmp.Or(compareBool(a == node, b == node), bytes.Compare(hash(b), hash(a))) < 0
	})
	return sorted
}

// proxyPorts are the ports of the domain's nodes that may be dialled: the kubelet's
// two, node-exporter's, that of openyurt's node metrics, and what the Gateway lists.
func (d *domain) proxyPorts() []uint16 {
	http, https := d.listedPorts()
	return sortPorts(slices.Concat([]uint16{portKubelet, 10255, 9100, 9445}, http, https))
}

// listedPorts are those of the Gateway; errors are reported by the source.
func (d *domain) listedPorts() (http, https []uint16) {
	if c := d.gw.Spec.ProxyConfig; c != nil {
		http, _ = v1beta1.ParsePorts(c.ProxyHTTPPort)
		https, _ = v1beta1.ParsePorts(c.ProxyHTTPSPort)
	}
	return http, https
}

// proxyCallers are the addresses that may ask an edge. Those of the own domain dial
// its nodes plainly.
func (p *planner) proxyCallers() []netip.Addr {
	var all []netip.Addr
	for _, d := range p.mesh.domains {
		if d == p.domain || !d.gw.Exposed() || !d.proxied() {
			continue
		}
		for _, e := range d.members {
			if e.gateway() && e.key != p.local.PublicKey {
				all = append(all, e.overlays()...)
			}
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Compare(all[j]) < 0 })
	return slices.Compact(all)
}

func (p *planner) planFront(out *Proxy) {
	for _, d := range p.mesh.domains {
		if !d.proxied() {
			continue
		}
		if d != p.domain && len(d.nodes) > 0 && !slices.ContainsFunc(d.members, func(e *member) bool {
			return e.gateway() && !e.key.IsZero()
		}) {
			p.report(d, "", "no active endpoint serves its nodes: they cannot be reached by name")
		}
	}
	out.PortMap = p.portMap()
}

// portMap reads the port map of the own Gateway. Of two node ports at one port of
// ours the kubelet's keeps it, then the lower.
func (p *planner) portMap() map[uint16]uint16 {
	field := fmt.Sprintf("metadata.annotations[%q]", v1beta1.AnnotationProxyPorts)
	given, _ := v1beta1.ParsePortMap(p.domain.gw.Metadata.Annotations[v1beta1.AnnotationProxyPorts])
	ports := slices.Collect(maps.Keys(given))
	sort.Slice(ports, func(i, j int) bool {
		a, b := ports[i], ports[j]
		return cmp.Or(compareBool(a == portKubelet, b == portKubelet), cmp.Compare(a, b)) < 0
	})
	out := map[uint16]uint16{}
	for _, node := range ports {
		listen := given[node]
		if other, taken := out[listen]; taken {
			p.report(p.domain, field, "port %d is given to %d and to %d; the second is left out", listen, other, node)
			continue
		}
		out[listen] = node
	}
	if len(out) == 0 {
		out[portProxyTLS] = portKubelet
	}
	return out
}

// sortPorts sorts in place and drops repetitions.
func sortPorts(ports []uint16) []uint16 {
	slices.Sort(ports)
	return slices.Compact(ports)
}

//go:build linux

package lab

// RoutePlain connects the domains by kernel routing alone, without agents and
// NATs: plain nodes send what is for other domains to their gateway node, routers
// know every pod subnet. It is the limit that tunnels are measured against, and
// tests the lab itself. Call it instead of starting agents.
func (t *Topology) RoutePlain() {
	for _, d := range t.Domains {
		if d != t.Domains[0] {
			d.Router.SetNAT(NAT{})
		}
		gw := d.Gateway()
		gw.Sysctl("net/ipv4/conf/all/send_redirects", "0") // packets leave the way they came
		gw.Sysctl("net/ipv4/conf/eth0/send_redirects", "0")
		for _, other := range t.Domains {
			for _, n := range other.Nodes {
				t.routePlain(d, other, n)
			}
		}
	}
}

// routePlain lays the routes of domain d to the pods of node n in another one,
// or in d itself.
func (t *Topology) routePlain(d, other *Domain, n *Node) {
	gw := d.Gateway()
	for _, s := range n.Subnets {
		v4 := s.Addr().Is4()
		switch {
		case d == other:
			d.Router.Route(Route{Dst: s, Via: gw.addr(v4)})
		default:
			for _, plain := range d.Nodes[1:] {
				plain.Route(Route{Dst: s, Via: gw.addr(v4)})
			}
			d.Router.Route(Route{Dst: s, Via: other.Router.linkAddr("wan", v4)})
		}
	}
}

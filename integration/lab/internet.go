//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/google/nftables"
)

// Site is a domain with one gateway node, on the WAN or behind NATs.
type Site struct {
	Name string
	NATs []NAT // from the node outwards; none: the node is on the WAN
	Hub  bool  // the Gateway says that it can be reached
	// V6 gives the node, and everything up to the WAN, global IPv6 addresses.
	// Without it only hubs and the WAN have some.
	V6 bool
	// Behind names an earlier site: this one is behind the same NATs, and in
	// the same LAN, or with OwnLAN in another LAN of the innermost router.
	Behind      string
	OwnLAN      bool
	Annotations map[string]string // of the Gateway
}

// InternetOptions configure Internet.
type InternetOptions struct {
	Sites []Site
	// Shaped makes the WAN of userspace links, which Host.Shape configures.
	Shaped bool
	// Capture records on the WAN links of all routers.
	Capture bool
	// Node may change each node's configuration before the node is made.
	Node func(*NodeConfig)
}

// Internet builds sites around a WAN, for tests of NAT traversal:
//
//	node ── "lan" router "wan" ─────────────┐
//	node ── router ── carrier (outer NAT) ──┤ WAN 203.0.113.0/24, 2001:db8:0:1::/64
//	node (hub, or with a public address) ───┘  Internet: the default router
//
// From one NAT to another there are hops between, where packets with a low TTL
// end: routers have their addresses as /32 and /128, and send all to Internet,
// which counts for wanHops of them.
//
// Each node is called SITE-gw and has one pod. Nodes behind NATs have the same
// address, 192.168.1.10, in every site that is not behind another one's router.
func Internet(l *Lab, opt InternetOptions) *Topology {
	t := &Topology{
		Lab: l, Gateways: filepath.Join(l.dir, "gateways"),
		opt: Options{Node: opt.Node, NoCapture: !opt.Capture},
	}
	if opt.Shaped {
		t.WAN = l.ShapedLAN("wan", 0, LinkConfig{})
	} else {
		t.WAN = l.LAN("wan", 0)
	}
	t.Internet = l.Host("internet")
	t.Internet.Attach(t.WAN, "wan", prefixes("203.0.113.1/24", "2001:db8:0:1::1/64")...)
	t.Internet.Forward()
	// It sends packets back to where they came from, and is no better router.
	t.Internet.Sysctl("net/ipv4/conf/all/send_redirects", "0")
	t.Internet.Sysctl("net/ipv4/conf/wan/send_redirects", "0")
	t.Internet.dropOld(wanHops)
	for i, s := range opt.Sites {
		t.addSite(i, s)
	}
	if opt.Capture {
		t.recordWAN()
	}
	return t
}

// wanHops is how many routers are between two NATs, as far as a TTL shows.
const wanHops = 4

// dropOld drops what h forwards and as many hops as that would have dropped.
func (h *Host) dropOld(hops byte) {
	if h.lab.failed(nil) {
		return
	}
	f, err := h.firewall()
	if err != nil {
		h.try("nftables", err)
		return
	}
	for _, family := range families {
		f.chain(family, filterForward, nftables.ChainPolicyAccept)
		f.add(family, filterForward, rule(ttlAtMost(family, hops-1), drop())) // one is counted already
	}
	h.try("hops", f.commit())
}

// wanAddrs are the addresses of site i on the WAN.
func wanAddrs(i int, v6 bool) []netip.Prefix {
	p := prefixes(fmt.Sprintf("203.0.113.%d/24", 10+i))
	if v6 {
		p = append(p, prefixes(fmt.Sprintf("2001:db8:0:1::%d/64", 10+i))...)
	}
	return p
}

func (t *Topology) addSite(i int, s Site) {
	d := &Domain{Name: s.Name, Hub: s.Hub, Annotations: s.Annotations}
	var addrs []netip.Prefix
	switch {
	case s.Behind != "":
		addrs = t.addNeighbour(d, i, s)
	case len(s.NATs) == 0:
		d.LAN, addrs = t.WAN, wanAddrs(i, s.Hub || s.V6)
	default:
		addrs = t.addRouters(d, i, s)
	}
	n := t.siteNode(d, i)
	n.AttachNode(d.LAN, addrs...)
	for _, a := range addrs {
		n.Route(Route{Dst: Default(a.Addr()), Via: a.Masked().Addr().Next()})
	}
	n.Pod("pod")
	d.Nodes = []*Node{n}
	t.Domains = append(t.Domains, d)
}

func (t *Topology) siteNode(d *Domain, i int) *Node {
	cfg := NodeConfig{
		Name:         d.Name + "-gw",
		Subnets:      prefixes(fmt.Sprintf("10.244.%d.0/24", 1+i), fmt.Sprintf("fd00:10:244:%d::/64", 1+i)),
		ClusterCIDRs: ClusterCIDRs(),
		Masquerade:   MasqLeavingCluster,
	}
	if t.opt.Node != nil {
		t.opt.Node(&cfg)
	}
	return t.Lab.Node(cfg)
}

// lanAddrs are the addresses of a LAN's router and node: of the nth LAN of the
// router of site i.
func lanAddrs(i, n int, v6 bool) (router, node []netip.Prefix) {
	router, node = prefixes(fmt.Sprintf("192.168.%d.1/24", n)), prefixes(fmt.Sprintf("192.168.%d.10/24", n))
	if v6 {
		router = append(router, prefixes(fmt.Sprintf("2001:db8:%d:%d::1/64", 100+i, n))...)
		node = append(node, prefixes(fmt.Sprintf("2001:db8:%d:%d::10/64", 100+i, n))...)
	}
	return router, node
}

// addRouters builds the NATs of a site, and returns the addresses of its node.
func (t *Topology) addRouters(d *Domain, i int, s Site) []netip.Prefix {
	wan, addrs := t.WAN, wanAddrs(i, s.V6)
	lans, node := lanAddrs(i, 1, s.V6)
	for j := len(s.NATs) - 1; j >= 0; j-- {
		name, inside := d.Name+"-router", lans
		if j > 0 {
			name = fmt.Sprintf("%s-carrier%d", d.Name, j)
			inside = prefixes(fmt.Sprintf("100.64.%d.1/24", j)) // no IPv6 there
		}
		lan := t.Lab.LAN(name, 0)
		r := t.Lab.Router(RouterConfig{Name: name, WAN: wan, WANAddrs: hostPrefixes(addrs), LAN: lan, LANAddrs: inside, NAT: s.NATs[j]})
		for _, a := range addrs {
			gw := a.Masked().Addr().Next()
			r.Route(Route{Dst: netip.PrefixFrom(gw, gw.BitLen()), Dev: "wan"}, Route{Dst: Default(gw), Via: gw})
		}
		d.Routers = append([]*Host{r}, d.Routers...)
		wan, addrs = lan, prefixes(fmt.Sprintf("100.64.%d.10/24", j))
	}
	d.LAN, d.Router = wan, d.Routers[0]
	if s.V6 && len(s.NATs) == 1 {
		t.Internet.Route(Route{Dst: netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::/48", 100+i)), Via: wanAddrs(i, true)[1].Addr()})
	}
	return node
}

// hostPrefixes are the addresses alone.
func hostPrefixes(all []netip.Prefix) []netip.Prefix {
	hosts := make([]netip.Prefix, len(all))
	for i, p := range all {
		hosts[i] = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
	}
	return hosts
}

// addNeighbour puts a site behind the router of another one, and returns the
// addresses of its node.
func (t *Topology) addNeighbour(d *Domain, i int, s Site) []netip.Prefix {
	for j, other := range t.Domains {
		if other.Name != s.Behind || other.Router == nil {
			continue
		}
		d.Router, d.Routers, d.LAN = other.Router, other.Routers, other.LAN
		if !s.OwnLAN {
			_, node := lanAddrs(j, 1, s.V6)
			for k, p := range node { // .10 is taken
				a := p.Addr()
				for range i {
					a = a.Next()
				}
				node[k] = netip.PrefixFrom(a, p.Bits())
			}
			return node
		}
		router, node := lanAddrs(j, 1+i, s.V6)
		d.LAN = t.Lab.LAN(d.Name, 0)
		d.Router.Attach(d.LAN, fmt.Sprintf("lan%d", 1+i), router...)
		return node
	}
	t.Lab.failed(fmt.Errorf("site %s: no site %s with a router", s.Name, s.Behind))
	return prefixes("192.168.99.10/24")
}

// WANHost returns the host that connects a domain to the WAN, and its link
// there: the outermost router, or the node itself.
func (d *Domain) WANHost() (h *Host, link string) {
	if n := len(d.Routers); n > 0 {
		return d.Routers[n-1], "wan"
	}
	if d.Router != nil {
		return d.Router, "wan"
	}
	return d.Nodes[0].Host, "eth0"
}

// WANAddr returns the IPv4 address that the WAN sees the domain with; zero when
// there is none.
func (d *Domain) WANAddr() netip.Addr {
	h, link := d.WANHost()
	return h.linkAddr(link, true)
}

// recordWAN captures what the hosts at the WAN send and receive.
func (t *Topology) recordWAN() {
	seen := make(map[*Host]bool)
	for _, d := range t.Domains {
		h, link := d.WANHost()
		if seen[h] || t.Lab.Err() != nil {
			continue
		}
		seen[h] = true
		if _, err := h.Capture(link, nil); err != nil {
			t.Lab.failed(err)
		}
	}
}

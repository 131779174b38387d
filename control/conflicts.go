package control

import (
	"fmt"
	"net/netip"

	"corax/dataplane/key"
)

// hazard is an address or range that this host needs for itself.
type hazard struct {
	prefix netip.Prefix
	what   string
}

// planConflicts finds the remote subnets that must not be installed here,
// because they would take packets from this host, its LANs, or the tunnel
// itself. It reports each, where they would be installed otherwise.
func (p *planner) planConflicts() {
	p.refused = map[netip.Prefix]bool{}
	if p.domain == nil {
		return
	}
	for _, h := range p.hazards() {
		for _, c := range p.mesh.claims.overlapping(h.prefix) {
			if c.domain == p.domain || c.domain.routed || p.refused[c.prefix] {
				continue
			}
			p.refused[c.prefix] = true
			if !p.on {
				continue
			}
			p.report(c.domain, c.field, "%s of node %s is not installed on this node: it overlaps %s", c.prefix, c.node.name, h.what)
		}
	}
}

func (p *planner) hazards() []hazard {
	var all []hazard
	addr := func(a netip.Addr, format string, args ...any) {
		if a.IsValid() {
			all = append(all, hazard{netip.PrefixFrom(a, a.BitLen()), fmt.Sprintf(format, args...)})
		}
	}
	addr(p.cfg.Self.NodeIP, "the address of this node, %s", p.cfg.Self.NodeIP)
	addr(p.local.APIServer, "the address of the API server, %s", p.local.APIServer)
	for _, n := range p.domain.nodes {
		addr(n.addr, "the address of node %s, %s", n.name, n.addr)
	}
	for i := range p.cfg.Peers {
		e := &p.cfg.Peers[i]
		addr(e.Endpoint.Addr(), "the tunnel endpoint of gateway %s, node %s, %s", e.Gateway, e.Node, e.Endpoint.Addr())
	}
	for _, l := range p.local.Prefixes {
		if lan, ok := p.lan(l); ok {
			all = append(all, hazard{lan, "the network " + lan.String() + " of this node"})
		}
	}
	// The pods behind a lost claim are still there, and the nodes of the domain
	// reach each other's without us.
	for _, c := range p.domain.lost {
		all = append(all, hazard{c.prefix, fmt.Sprintf("%s of node %s of this domain", c.prefix, c.node.name)})
	}
	return all
}

// lan returns the network of one of this host's addresses, unless it is none
// that a remote subnet could take packets from: loopback, link-local, our own
// overlay, or the bridge of this node's own pods.
func (p *planner) lan(l netip.Prefix) (netip.Prefix, bool) {
	a := l.Addr().Unmap().WithZone("")
	if !l.IsValid() || a.IsLoopback() || a.IsLinkLocalUnicast() || key.OverlayPrefix.Contains(a) {
		return netip.Prefix{}, false
	}
	if a.Is4() && !l.Addr().Is4() {
		l = netip.PrefixFrom(a, max(0, l.Bits()-96))
	}
	lan := l.Masked()
	for _, s := range p.cfg.Self.Subnets {
		if s.Overlaps(lan) && s.Bits() <= lan.Bits() {
			return netip.Prefix{}, false
		}
	}
	return lan, true
}

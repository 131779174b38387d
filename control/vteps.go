package control

import (
	"net/netip"
	"slices"

	"corax/dataplane"
)

// planVTEPs lists the nodes of the domain that this one speaks VXLAN with. A
// carrier hears from every node, and from each only its own pods. Any other
// node hears from the carriers, and from them the other domains. A standby does
// both, so that it can take over without a moment in which it knows nobody; and
// every node speaks with every listed endpoint, which may become its home.
func (p *planner) planVTEPs() {
	if !p.on {
		return
	}
	for _, n := range p.domain.nodes {
		if !p.neighbour(n) {
			continue
		}
		v := dataplane.VTEP{Node: n.name, Addr: n.addr, Sources: slices.Clone(n.subnets)}
		e := p.domain.memberOn[n.name]
		switch {
		case !p.carrier() && p.domain.carriers[n.name] != nil:
			v.Sources = p.remotePrefixes()
		case !p.carrier() && p.member == nil && (e == nil || e.key.IsZero()):
			continue
		case !p.carrier() && p.member == nil:
			v.Sources = nil // for what it says of itself
		}
		if e != nil && p.overVXLAN(e) {
			v.Overlay = e.key.Overlay()
			if !e.other.IsZero() {
				v.Other = e.other.Overlay()
			}
		}
		p.cfg.VTEPs = append(p.cfg.VTEPs, v)
	}
}

// overVXLAN reports whether a member's overlay address is reached by VXLAN: in
// the own domain, between a carrier and a node that is none (see the package
// documentation). Claims change nothing of that: who has not heard of one must
// still be reached the way that he expects.
func (p *planner) overVXLAN(e *member) bool {
	if !p.on || e.domain != p.domain || e.key.IsZero() || p.domain.nodeNamed[e.node] == nil {
		return false
	}
	if !p.neighbour(p.domain.nodeNamed[e.node]) {
		return false
	}
	return p.member == nil || p.domain.wasElected(p.local.Node) != p.domain.wasElected(e.node)
}

// neighbour reports whether n is another node, at another address: Gateway
// objects may be wrong about ours.
func (p *planner) neighbour(n *node) bool {
	return n.name != p.local.Node && n.addr != p.cfg.Self.NodeIP
}

// vxlanMTU returns what one hop to a VTEP carries; never more than corax0 at
// the other end takes, and never less than every IPv4 host accepts.
func (p *planner) vxlanMTU(vtep netip.Addr) int {
	const least = 576 // RFC 1122 section 3.3.3
	return max(least, min(p.cfg.Self.MTU, dataplane.VXLANMTU(p.local.LinkMTU, vtep.Is6())))
}

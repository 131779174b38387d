package control

import (
	"net/netip"
	"slices"

	"corax/dataplane"
	"corax/dataplane/key"
)

// planRoutes fills the fabric's table and the kernel's.
func (p *planner) planRoutes() {
	p.cfg.Routes = slices.Grow(p.cfg.Routes, 1+len(p.cfg.Self.Subnets)+len(p.cfg.Peers)+len(p.remote))
	p.cfg.Host = slices.Grow(p.cfg.Host, len(p.remote))
	if a := p.cfg.Self.Overlay; a.IsValid() {
		p.route(dataplane.Route{Prefix: host(a), Via: dataplane.ViaNetstack})
	}
	for _, s := range p.cfg.Self.Subnets {
		p.route(dataplane.Route{Prefix: s, Via: dataplane.ViaTUN})
	}
	p.routeOverlays()
	if p.carrier() {
		p.routeHomed()
	}
	home := p.home()
	for _, r := range p.remote {
		p.routeRemote(r, home)
	}
}

// routeOverlays leads to the overlay addresses of peers and carriers.
func (p *planner) routeOverlays() {
	over := map[key.Public]bool{}
	if p.on {
		for _, e := range p.domain.members {
			if e == p.member || e.key == p.local.PublicKey || !p.overVXLAN(e) {
				continue
			}
			addr := p.domain.nodeNamed[e.node].addr
			for _, k := range []key.Public{e.key, e.other} {
				if k.IsZero() {
					continue
				}
				over[k] = true
				p.route(dataplane.Route{
					Prefix: host(k.Overlay()), Via: dataplane.ViaVXLAN, VTEP: addr, MTU: p.vxlanMTU(addr),
				})
			}
		}
	}
	for i := range p.cfg.Peers {
		e := &p.cfg.Peers[i]
		if !over[e.PublicKey] {
			p.route(dataplane.Route{
				Prefix: e.AllowedIPs[0], Via: dataplane.ViaWireGuard, Peer: e.PublicKey, MTU: p.pathMTU(),
			})
		}
	}
}

// routeHomed leads from a carrier to the nodes that are homed on it.
func (p *planner) routeHomed() {
	for _, n := range p.domain.nodes {
		if !p.neighbour(n) || p.domain.owner(n) != p.local.Node {
			continue
		}
		for _, s := range n.subnets {
			p.route(dataplane.Route{Prefix: s, Via: dataplane.ViaVXLAN, VTEP: n.addr, MTU: p.vxlanMTU(n.addr)})
		}
	}
}

// routeRemote leads to a subnet of another domain: from a carrier by WireGuard
// to its owner, from any other node by VXLAN to the node's home. Without either
// the subnet stays ours, and unreachable.
func (p *planner) routeRemote(r remote, home *node) {
	route := dataplane.Route{Prefix: r.prefix, MTU: p.pathMTU()}
	switch {
	case r.owner == nil:
	case p.carrier():
		route.Via, route.Peer = dataplane.ViaWireGuard, r.owner.key
	case home != nil:
		route.Via, route.VTEP = dataplane.ViaVXLAN, home.addr
		route.MTU = min(route.MTU, p.vxlanMTU(home.addr))
	}
	p.route(route)
	p.cfg.Host = append(p.cfg.Host, dataplane.HostRoute{Prefix: r.prefix, MTU: route.MTU})
}

// home returns the carrier that this node sends through; nil when it has none.
func (p *planner) home() *node {
	if !p.on || p.carrier() {
		return nil
	}
	n := p.domain.nodeNamed[Home(p.local.Node, p.domain.carrierNames)]
	if n == nil || !p.neighbour(n) {
		return nil
	}
	return n
}

func (p *planner) pathMTU() int { return min(dataplane.PathMTU, p.cfg.Self.MTU) }

func (p *planner) route(r dataplane.Route) { p.cfg.Routes = append(p.cfg.Routes, r) }

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

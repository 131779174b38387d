package control

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"corax/control/api/v1beta1"
	"corax/dataplane"
)

const defaultLinkMTU = 1500

// planner works out the part of the mesh that one node has.
type planner struct {
	mesh  *mesh
	local Local

	domain *domain // nil: in no Gateway
	node   *node   // nil: not in status.nodes, or left out there
	member *member // nil: not listed
	on     bool    // this node takes part in tunnel mode

	refused  map[netip.Prefix]bool // subnets that must not be installed here
	remote   []remote
	cfg      dataplane.Config
	problems []Problem
}

// remote is a subnet of another domain that is installed on this node.
type remote struct {
	claim
	owner *member // nil: nobody carries it now
}

func newPlanner(s Snapshot, l Local) *planner {
	p := &planner{mesh: newMesh(s, l), local: l}
	if p.local.LinkMTU <= 0 {
		p.local.LinkMTU = defaultLinkMTU
	}
	p.local.NodeIP = l.NodeIP.Unmap()
	p.local.APIServer = l.APIServer.Unmap()
	if d := p.mesh.ofNode[l.Node]; d != nil {
		p.domain, p.node, p.member = d, d.nodeNamed[l.Node], d.memberOn[l.Node]
		p.on = d.tunnel && !d.routed
	}
	return p
}

func (p *planner) role() Role {
	switch {
	case p.domain == nil:
		return RoleNone
	case p.member == nil:
		return RoleNode
	case p.member.gateway():
		return RoleGateway
	default:
		return RoleStandby
	}
}

// carrier reports whether this node carries subnets of its domain.
func (p *planner) carrier() bool {
	return p.on && p.domain.carriers[p.local.Node] != nil
}

func (p *planner) planSelf() {
	self := &p.cfg.Self
	self.Node, self.NodeIP = p.local.Node, p.local.NodeIP
	self.Overlay = p.local.PublicKey.Overlay()
	self.MTU = dataplane.InnerMTU(p.local.LinkMTU)
	self.Tunnel = p.member != nil
	if p.domain == nil {
		return
	}
	self.Gateway, self.Cost = p.domain.name, p.domain.cost
	if n := p.node; n != nil {
		if p.on {
			self.Subnets = slices.Clone(n.subnets)
		}
		if !self.NodeIP.IsValid() {
			self.NodeIP = n.addr
		}
		// Alone, as an agent in a pod, nobody sends to it there.
		if self.NodeIP != n.addr && len(p.domain.nodes) > 1 {
			p.report(p.domain, fmt.Sprintf("status.nodes[%d].privateIP", n.index),
				"%s is not the address of this node, %s: the others send to the wrong one", n.addr, self.NodeIP)
		}
	}
	if e := p.member; e != nil {
		self.Hub, self.Relay = e.hub(), e.relay()
	}
	if e := p.member; e != nil && !e.key.IsZero() && e.key != p.local.PublicKey {
		p.report(p.domain, e.keyField(), "not the public key of node %s: its peers cannot reach it", e.node)
	}
	if e := p.member; e != nil && !e.other.IsZero() && e.key == p.local.PublicKey {
		if first, _ := e.entry.PublicKey(); first != e.key {
			p.report(p.domain, e.nextKeyField(), "node %s uses this key now: make it the %s", e.node, v1beta1.ConfigPublicKey)
		}
	}
}

func (p *planner) report(d *domain, field, format string, args ...any) {
	p.problems = append(p.problems, Problem{
		Object: GatewayObject(d.name), Field: field, Message: fmt.Sprintf(format, args...),
	})
}

func (p *planner) sort() {
	c := &p.cfg
	sort.Slice(c.Peers, func(i, j int) bool {
		return bytes.Compare(c.Peers[i].PublicKey[:], c.Peers[j].PublicKey[:]) < 0
	})
	sort.Slice(c.VTEPs, func(i, j int) bool { return c.VTEPs[i].Addr.Compare(c.VTEPs[j].Addr) < 0 })
	sort.Slice(c.Routes, func(i, j int) bool { return c.Routes[i].Prefix.Compare(c.Routes[j].Prefix) < 0 })
	sort.Slice(c.Host, func(i, j int) bool { return c.Host[i].Prefix.Compare(c.Host[j].Prefix) < 0 })
}

// carriers lists the gateway nodes of the domain for a node that is none.
func (p *planner) carriers() []Carrier {
	if !p.on || p.carrier() {
		return nil
	}
	home := Home(p.local.Node, p.domain.carrierNames)
	var all []Carrier
	for _, name := range p.domain.carrierNames {
		all = append(all, Carrier{
			Node: name, Addr: p.domain.nodeNamed[name].addr,
			Overlay: p.domain.carriers[name].key.Overlay(), Home: name == home,
		})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Node < all[j].Node })
	return all
}

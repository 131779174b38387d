package control

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"corax/control/api/v1beta1"
)

// maxHomeHubs bounds the hubs with which an edge keeps a session.
const maxHomeHubs = 3

// reach is how a member is reached from other domains.
type reach struct {
	// public is publicIP and its port; zero without publicIP.
	public netip.AddrPort
	// host and port stand in for public when only a DNS name is known.
	host string
	port uint16
	// open says that the member has an address and can be sent to first.
	open bool
}

// hub reports whether the member is a gateway node that can be reached first.
func (e *member) hub() bool { return e.reach.open && e.gateway() }

// relay reports whether the member is a hub that relays for others.
func (e *member) relay() bool { return e.hub() && e.domain.gw.Relay() }

func (m *mesh) readReach(d *domain) {
	for _, e := range d.members {
		addr, _ := e.entry.PublicAddr() // errors are reported by the source
		host, _ := e.entry.PublicHost()
		port := e.entry.ExposedPort()
		known := true
		switch {
		case addr.IsValid():
			e.reach.public = netip.AddrPortFrom(addr, port)
		case host != "":
			e.reach.host, e.reach.port = host, port
		default:
			known = false
		}
		e.reach.open = known && (d.gw.Exposed() || !e.entry.UnderNAT)
		if !known && d.gw.Exposed() && e.gateway() {
			m.report(d, e.field+".publicIP", "gateway %s is exposed, but its endpoint on node %s has neither publicIP nor config[%q]",
				d.name, e.node, v1beta1.ConfigPublicHost)
		}
	}
}

// dropCovered takes the published address from a member where it lies in a private
// subnet of another domain: no such address is reached from other sites, and to
// install the subnet nowhere, as for other addresses that packets for it would take
// away, would let one node cut off the pods of others. A public subnet with the
// address of a peer in it is more likely wrong itself.
func (m *mesh) dropCovered(d *domain) {
	for _, e := range d.members {
		a := e.reach.public.Addr()
		if !a.IsValid() {
			continue
		}
		for _, c := range m.claims.overlapping(host(a)) {
			if c.domain == d || c.domain.routed || !private(c.prefix) {
				continue
			}
			m.report(d, e.field+".publicIP", "%s of node %s lies in %s of gateway %s, node %s, and is not used",
				a, e.node, c.prefix, c.domain.name, c.node.name)
			e.reach.public, e.reach.open = netip.AddrPort{}, false
		}
	}
}

// private reports whether all of p is for use inside networks.
func private(p netip.Prefix) bool {
	for _, s := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"} {
		if r := netip.MustParsePrefix(s); r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// hubs returns the hubs with usable keys: those that relay first, then the
// cheapest, then by name.
func (m *mesh) hubs() []*member {
	var all []*member
	for _, d := range m.domains {
		for _, e := range d.members {
			if e.hub() && !e.key.IsZero() {
				all = append(all, e)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *member) int {
		return cmp.Or(
			compareBool(a.relay(), b.relay()),
			cmp.Compare(a.domain.cost, b.domain.cost),
			cmp.Compare(a.domain.name, b.domain.name),
			cmp.Compare(a.node, b.node),
		)
	})
	return all
}

// compareBool orders true first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// lanPort returns the port at which the member listens on its own LAN: not the
// exposed one, which a NAT or a load balancer may have changed.
func (e *member) lanPort(l Local) uint16 {
	if e.entry.Type == v1beta1.TypeTunnel && e.entry.Port > 0 && e.entry.Port <= 65535 &&
		e.domain.gw.Spec.ExposeType != v1beta1.ExposeLoadBalancer {
		return uint16(e.entry.Port)
	}
	return cmp.Or(l.TunnelPort, v1beta1.PortTunnel)
}

// String names the member in messages.
func (e *member) String() string { return fmt.Sprintf("gateway %s, node %s", e.domain.name, e.node) }

package fabric

import (
	"net/netip"

	"corax/dataplane"
)

// verdict is what happens to the packets of one flow: they go to way, or are
// dropped for a reason and perhaps answered.
type verdict struct {
	way    *entry
	drop   counter
	answer counter // none: silence
	// transit says that no kernel and no netstack of this node counts the hop.
	transit bool
}

// decide finds the verdict on packets from src to dst. vtep is their sender
// when they came over VXLAN.
func (f *Fabric) decide(s *snapshot, o Origin, src, dst, vtep netip.Addr) verdict {
	if drop := martian(src, dst); drop != none {
		return verdict{drop: drop}
	}
	if drop := s.checkSource(o, src, dst, vtep); drop != none {
		return verdict{drop: drop}
	}
	if o == FromVXLAN && isOverlay(src) && s.overlays[src] == nil && !f.neighbours.learn(src, vtep, f.now()) {
		f.counters.add(neighbourRefused, 1)
	}
	e := f.lookup(s, o, dst)
	switch {
	case e == nil || e.route.Via == dataplane.ViaNone:
		return verdict{drop: dropNoRoute, answer: icmpNoRoute}
	case o == FromWireGuard && e.out == FromWireGuard:
		return verdict{drop: dropWGToWG, answer: icmpProhibited}
	case o == e.out && !(o == FromVXLAN && isOverlay(dst)):
		return verdict{drop: dropHairpin, answer: icmpProhibited}
	case s.out[e.out] == nil:
		return verdict{drop: dropNoWireGuard + counter(e.out), answer: icmpUnreachable}
	}
	return verdict{way: e, transit: o <= FromVXLAN && e.out <= FromVXLAN}
}

// checkSource applies the rules of the origin to a source that is no martian.
func (s *snapshot) checkSource(o Origin, src, dst, vtep netip.Addr) counter {
	switch o {
	case FromTUN:
		if !s.ownSubnet(src) {
			return dropTUNSource
		}
	case FromNetstack:
		if src != s.overlay && src != s.nodeIP && !s.ownSubnet(src) {
			return dropNetstackSource
		}
	default:
		if src == s.overlay || s.ownSubnet(src) {
			return dropSpoofedSource
		}
		if o == FromVXLAN && isOverlay(src) && (dst != s.overlay || !s.ownsOverlay(vtep, src)) {
			return dropOverlaySource
		}
	}
	return none
}

// ownsOverlay reports whether the node at addr may speak from the overlay
// address src: its own, or one that nobody is known to own. The attack stopped:
// a node of the LAN that speaks in the name of a WireGuard peer, whose hello we
// would believe. So what a route leads to over WireGuard is nobody's here, even
// where the configuration names it as a node's.
func (s *snapshot) ownsOverlay(addr, src netip.Addr) bool {
	route, named := s.routes.Get(hostPrefix(src))
	if named && route.route.Via == dataplane.ViaWireGuard {
		return false
	}
	if v := s.vteps[addr]; v != nil && (v.overlay == src || v.other == src) {
		return true
	}
	return s.overlays[src] == nil && !named
}

// martian returns the reason to drop a packet with addresses that no router
// forwards: RFC 1812 section 5.3.7, RFC 4291 section 2.5.
func martian(src, dst netip.Addr) counter {
	switch {
	case dst.IsMulticast() || dst == broadcast4:
		return dropMulticast
	case dst.IsLinkLocalUnicast() || src.IsLinkLocalUnicast():
		return dropLinkLocal
	case src.IsMulticast() || src == broadcast4 || nowhere(src):
		return dropMartianSource
	case nowhere(dst):
		return dropMartianDestination
	}
	return none
}

// nowhere reports whether a is unspecified, loopback, "this network" or an
// IPv4-mapped address, which are only good inside a host.
func nowhere(a netip.Addr) bool {
	return a.IsUnspecified() || a.IsLoopback() || a.Is4In6() || a.Is4() && a.As4()[0] == 0
}

var broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})

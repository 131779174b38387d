package fabric

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"

	"corax/dataplane"
	"corax/dataplane/key"
)

// minMTU bounds the MTU of a way from below: RFC 791 asks every host to take
// datagrams of 576 bytes, and fragmentation needs room for its headers.
const minMTU = 576

// entry is one way out, resolved from a route.
type entry struct {
	route dataplane.Route
	out   Origin // valid unless route.Via is ViaNone
	vtep  netip.Addr
	// mtu is what the way carries; for IPv6 it may be less than the 1280 bytes
	// that must be carried all the same.
	mtu int
	// carry is what goes through all the same, at least mtu.
	carry int
	// tcp is what the MSS is clamped to, at most mtu.
	tcp int
}

// limit is the largest packet to let out, in bytes.
func (e *entry) limit(v6 bool) int {
	if v6 {
		return max(e.mtu, dataplane.MinMTU6)
	}
	return e.mtu
}

// carries is the largest packet that goes through, although its sender may be told
// that it is too big.
func (e *entry) carries(v6 bool) int { return max(e.limit(v6), e.carry) }

// vtep is what the fabric knows of one VXLAN tunnel endpoint.
type vtep struct {
	overlay netip.Addr // when the configuration names it
	other   netip.Addr // likewise
	way     *entry     // to the node itself
}

// snapshot is everything that forwarding reads. It never changes once made.
type snapshot struct {
	routes   bart.Table[*entry]
	own      []netip.Prefix
	overlay  netip.Addr
	nodeIP   netip.Addr
	mtu      int
	out      [origins]dataplane.Sender
	vteps    map[netip.Addr]*vtep
	overlays map[netip.Addr]*entry // overlay addresses of VTEPs, from the configuration
}

func newSnapshot(cfg dataplane.Config, out Outputs) (*snapshot, error) {
	s := &snapshot{
		overlay:  cfg.Self.Overlay,
		nodeIP:   cfg.Self.NodeIP.Unmap(),
		out:      [origins]dataplane.Sender{out.WireGuard, out.VXLAN, out.TUN, out.Netstack},
		vteps:    make(map[netip.Addr]*vtep, len(cfg.VTEPs)),
		overlays: make(map[netip.Addr]*entry),
	}
	var errs []error
	s.mtu = dataplane.DefaultMTU
	if cfg.Self.MTU != 0 {
		var err error
		if s.mtu, err = boundMTU(cfg.Self.MTU); err != nil {
			errs = append(errs, fmt.Errorf("fabric: node: %w", err))
		}
	}
	for _, p := range cfg.Self.Subnets {
		if !usable(p) {
			errs = append(errs, fmt.Errorf("fabric: own subnet %v: not a usable prefix", p))
			continue
		}
		s.own = append(s.own, p.Masked())
	}
	for _, r := range cfg.Routes {
		if err := s.addRoute(r); err != nil {
			errs = append(errs, fmt.Errorf("fabric: route %v: %w", r.Prefix, err))
		}
	}
	if host := hostPrefix(s.overlay); host.IsValid() {
		if _, ok := s.routes.Get(host); !ok {
			_ = s.addRoute(dataplane.Route{Prefix: host, Via: dataplane.ViaNetstack})
		}
	}
	tightest := make(map[netip.Addr]int) // MTU of the routes through a VTEP
	for _, e := range s.routes.All() {
		if mtu, ok := tightest[e.vtep]; !ok || e.mtu < mtu {
			tightest[e.vtep] = e.mtu
		}
	}
	for _, v := range cfg.VTEPs {
		if err := s.addVTEP(v, tightest); err != nil {
			errs = append(errs, fmt.Errorf("fabric: vtep %v: %w", v.Addr, err))
		}
	}
	return s, errors.Join(errs...)
}

// addRoute inserts r. A route with a usable prefix and anything else wrong is
// inserted as one that drops.
func (s *snapshot) addRoute(r dataplane.Route) error {
	if !usable(r.Prefix) {
		return errors.New("not a usable prefix")
	}
	r.Prefix = r.Prefix.Masked()
	if _, ok := s.routes.Get(r.Prefix); ok {
		return errors.New("named twice, the first counts")
	}
	var errs []error
	e := &entry{mtu: s.mtu}
	if r.MTU != 0 {
		var err error
		if e.mtu, err = boundMTU(r.MTU); err != nil {
			errs = append(errs, err)
		}
	}
	if r.Carry != 0 {
		carry, err := boundMTU(r.Carry)
		if err != nil {
			errs = append(errs, fmt.Errorf("carry: %w", err))
		}
		e.carry = carry
	}
	e.tcp = e.mtu
	if r.TCPMTU != 0 {
		tcp, err := boundMTU(r.TCPMTU)
		if err != nil {
			errs = append(errs, fmt.Errorf("TCP: %w", err))
		}
		e.tcp = min(e.mtu, tcp)
	}
	switch r.Via {
	case dataplane.ViaNone:
	case dataplane.ViaWireGuard:
		e.out = FromWireGuard
	case dataplane.ViaVXLAN:
		e.out, e.vtep = FromVXLAN, r.VTEP.Unmap()
		if !e.vtep.IsValid() {
			errs = append(errs, errors.New("via VXLAN without a VTEP"))
			r.Via = dataplane.ViaNone
		}
	case dataplane.ViaTUN:
		e.out = FromTUN
	case dataplane.ViaNetstack:
		e.out = FromNetstack
	default:
		errs = append(errs, fmt.Errorf("unknown way %d", r.Via))
		r.Via = dataplane.ViaNone
	}
	e.route = r
	s.routes.Insert(r.Prefix, e)
	return errors.Join(errs...)
}

// addVTEP comes after the routes: the way to the node itself carries as much as
// the tightest route through it.
func (s *snapshot) addVTEP(v dataplane.VTEP, tightest map[netip.Addr]int) error {
	addr := v.Addr.Unmap()
	if !addr.IsValid() {
		return errors.New("no address")
	}
	if s.vteps[addr] != nil {
		return errors.New("named twice, the first counts")
	}
	way := &entry{
		route: dataplane.Route{Via: dataplane.ViaVXLAN, VTEP: addr},
		out:   FromVXLAN,
		vtep:  addr,
		mtu:   s.mtu,
	}
	if mtu, ok := tightest[addr]; ok {
		way.mtu = min(way.mtu, mtu)
	}
	way.tcp = way.mtu
	way.route.MTU = way.mtu
	s.vteps[addr] = &vtep{way: way}
	for _, x := range []struct {
		addr netip.Addr
		to   *netip.Addr
	}{{v.Overlay, &s.vteps[addr].overlay}, {v.Other, &s.vteps[addr].other}} {
		if !x.addr.IsValid() {
			continue
		}
		if !isOverlay(x.addr) {
			return fmt.Errorf("overlay address %v is not in %v", x.addr, key.OverlayPrefix)
		}
		*x.to = x.addr
		if s.overlays[x.addr] == nil {
			s.overlays[x.addr] = way
		}
	}
	return nil
}

// ownSubnet reports whether a is an address of this node's pods.
func (s *snapshot) ownSubnet(a netip.Addr) bool {
	for _, p := range s.own {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// boundMTU brings an MTU into the range that the fabric works in. More than
// MaxMTU is not wrong, just more than corax0 ever has.
func boundMTU(mtu int) (int, error) {
	if mtu < minMTU {
		return minMTU, fmt.Errorf("MTU %d is below %d", mtu, minMTU)
	}
	return min(mtu, dataplane.MaxMTU), nil
}

// usable reports whether a packet's destination can match p: packets carry
// plain IPv4 and IPv6 addresses, never mapped ones or zones.
func usable(p netip.Prefix) bool { return p.IsValid() && !p.Addr().Is4In6() }

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func isOverlay(a netip.Addr) bool { return key.OverlayPrefix.Contains(a) }

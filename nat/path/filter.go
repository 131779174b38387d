package path

import "net/netip"

const (
	maxCandidates = 100 // of the peer that count
	maxReflexive  = 16  // further ones that its probes showed
)

func sharedSpace(a netip.Addr) bool { // RFC 6598
	return a.Is4() && a.As4()[0] == 100 && a.As4()[1]&0xc0 == 64
}

// private reports that an address means another host at another site.
func private(a netip.Addr) bool { return a.IsPrivate() || sharedSpace(a) }

// allowed reports whether an address that the peer named may be probed. A peer
// must not make us send to ourselves, into pod networks, to many at once, or,
// when we are a hub, to others behind us.
func (m *Machine) allowed(ap netip.AddrPort) bool {
	a := ap.Addr()
	if !a.IsValid() || ap.Port() == 0 || a.Is4In6() || a.Zone() != "" {
		return false
	}
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return false
	}
	if a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 224) {
		return false // "this network", and broadcast with what was class E
	}
	for _, own := range m.local.Own {
		if own.Unmap() == a {
			return false
		}
	}
	for _, p := range m.local.Forbidden {
		if p.Contains(a) {
			return false
		}
	}
	for _, p := range m.local.Connected {
		if a.Is4() && p.Addr().Is4() && p.Bits() < 31 && p.Contains(a) && edge(p, a) {
			return false
		}
	}
	return !m.local.Hub || !private(a) || m.connected(a)
}

// edge reports whether a is the first or last address of a network: its
// broadcast addresses.
func edge(p netip.Prefix, a netip.Addr) bool {
	return a == p.Masked().Addr() || !p.Contains(a.Next())
}

func (m *Machine) connected(a netip.Addr) bool {
	for _, p := range m.local.Connected {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// behindNAT reports that our packet to a candidate may meet a NAT of the peer
// before the peer opened it. Such a NAT may note the packet as one to itself,
// and then give the peer's own flow another port.
func (m *Machine) behindNAT(c Candidate) bool {
	if c.Kind == Configured || c.Kind == PortMapped {
		return false // open already
	}
	a := c.Addr.Addr()
	return a.Is4() && !private(a) && !m.connected(a) &&
		!m.remote.Hub && m.remote.NAT.Mapping != MappingNone
}

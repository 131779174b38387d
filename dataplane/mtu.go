package dataplane

// Encapsulation overheads and limits, in bytes.
const (
	OverheadVXLAN4 = 50 // outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14
	OverheadVXLAN6 = 70 // the same over IPv6
	OverheadWG4    = 60 // outer IPv4 20, UDP 8, WireGuard header 16, tag 16
	OverheadWG6    = 80 // the same over IPv6
	OverheadRelay  = 8  // relay frame: 0xC5 and the label

	MinMTU6 = 1280 // RFC 8200 section 5: every IPv6 link carries this

	// DefaultMTU is the inner MTU on underlays of up to 1500 bytes: 88 x 16,
	// which fits with IPv6, relay header and WireGuard's padding to 16.
	DefaultMTU = 1408
	// MaxMTU bounds the inner MTU on underlays with jumbo frames.
	MaxMTU = 8912
	// PathMTU is the inner MTU that a path is assumed to carry before it has
	// been probed.
	PathMTU = 1360
	// PathMTU6 is the inner MTU that every IPv6 path carries. No router
	// fragments IPv6, and where the errors that would say so are blocked larger
	// packets vanish; so TCP keeps to it on a path that has not been probed.
	PathMTU6 = MinMTU6 - OverheadWG6
)

// InnerMTU returns the MTU of corax0 for an underlay link MTU: DefaultMTU on
// links of up to 1500 bytes, (link - 88) rounded down to a multiple of 16 above
// that, at most MaxMTU.
func InnerMTU(link int) int {
	if link <= 1500 {
		return DefaultMTU
	}
	return max(DefaultMTU, min((link-OverheadWG6-OverheadRelay)&^15, MaxMTU))
}

// VXLANMTU returns the largest inner packet that one VXLAN hop over a link of
// the given MTU carries, with the outer header over IPv6 when v6 is set.
func VXLANMTU(link int, v6 bool) int {
	if v6 {
		return link - OverheadVXLAN6
	}
	return link - OverheadVXLAN4
}

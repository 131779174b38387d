package vxlan

import (
	"fmt"
	"net/netip"
)

// MAC is an Ethernet address. It is comparable.
type MAC [6]byte

// Broadcast reaches every station of the segment.
var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String returns the usual form, aa:0f:f0:00:00:01.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// group reports whether m is broadcast or multicast.
func (m MAC) group() bool { return m[0]&1 != 0 }

// segmentPrefix holds every segment address.
var segmentPrefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{240}), 8)

// SegmentAddr returns the address of a node on the segment: 240.b.c.d, where
// b.c.d are the last three bytes of its IP, of either family. Two nodes that
// share these bytes collide. Of the zero Addr it is the zero Addr.
func SegmentAddr(node netip.Addr) netip.Addr {
	if !node.IsValid() {
		return netip.Addr{}
	}
	a := node.As16()
	return netip.AddrFrom4([4]byte{240, a[13], a[14], a[15]})
}

// SegmentPrefix returns the segment address of a node with the length of the
// segment, /8, as it is put on an interface.
func SegmentPrefix(node netip.Addr) netip.Prefix {
	return netip.PrefixFrom(SegmentAddr(node), segmentPrefix.Bits())
}

// NodeMAC returns the MAC of a node on the segment: aa:0f and the bytes of its
// segment address. Of the zero Addr it is the zero MAC.
func NodeMAC(node netip.Addr) MAC {
	if !node.IsValid() {
		return MAC{}
	}
	a := SegmentAddr(node).As4()
	return MAC{0xaa, 0x0f, a[0], a[1], a[2], a[3]}
}

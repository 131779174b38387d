package vxlan

import (
	"encoding/binary"
	"net/netip"
)

const (
	ipv4Len = 20
	ipv6Len = 40

	protoICMP6 = 58
)

// parseIP returns the IP packet that b starts with, without the padding that an
// Ethernet may have added, and its addresses. The capacity of the packet is its
// length. It checks no more than that: the rest is the fabric's.
func parseIP(etherType uint16, b []byte) (pkt []byte, src, dst netip.Addr, ok bool) {
	switch etherType {
	case typeIPv4:
		if len(b) < ipv4Len || b[0]>>4 != 4 {
			return nil, src, dst, false
		}
		ihl, n := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if ihl < ipv4Len || n < ihl || n > len(b) {
			return nil, src, dst, false
		}
		return b[:n:n], netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), true
	case typeIPv6:
		if len(b) < ipv6Len || b[0]>>4 != 6 {
			return nil, src, dst, false
		}
		n := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
		if n > len(b) {
			return nil, src, dst, false
		}
		return b[:n:n], netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), true
	}
	return nil, src, dst, false
}

// etherTypeOf returns the ethertype for an IP packet; zero when it is none.
func etherTypeOf(b []byte) uint16 {
	switch {
	case len(b) >= ipv4Len && b[0]>>4 == 4:
		return typeIPv4
	case len(b) >= ipv6Len && b[0]>>4 == 6:
		return typeIPv6
	}
	return 0
}

package vxlan

import (
	"encoding/binary"
	"net/netip"

	gheader "gvisor.dev/gvisor/pkg/tcpip/header"
)

// ip4 makes an IPv4 packet.
func ip4(src, dst string, proto byte, payload []byte) []byte {
	b := make([]byte, ipv4Len, ipv4Len+len(payload))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(ipv4Len+len(payload)))
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	h := gheader.IPv4(b)
	h.SetChecksum(^h.CalculateChecksum())
	return append(b, payload...)
}

// ip6 makes an IPv6 packet.
func ip6(src, dst string, proto byte, payload []byte) []byte {
	b := make([]byte, ipv6Len, ipv6Len+len(payload))
	b[0], b[6], b[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	s, d := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, payload...)
}

// datagram puts a frame around a payload.
func datagram(dst, src MAC, etherType uint16, payload []byte) []byte {
	h := makeHeader(DefaultVNI, dst, src, etherType)
	return append(h[:], payload...)
}

// arpRequest is a request of senderIP for targetIP.
func arpRequest(senderMAC MAC, senderIP, targetIP netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(append(b, senderMAC[:]...), senderIP.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), targetIP.AsSlice()...)
}

package vxlan

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

const (
	protoTCP = 6
	protoUDP = 17
)

// completeChecksum finishes the TCP or UDP checksum of a packet when only its
// pseudo-header is in it yet, and reports whether that was so. A kernel VXLAN device leaves the rest to the NIC,
// and on a veth, as between containers of one machine, no NIC ever comes: the
// datagram reaches us as it is. For a packet whose right checksum happens to
// equal that sum the result is the same bytes.
func completeChecksum(etherType uint16, pkt []byte) bool {
	var proto byte
	var l4, addrs []byte
	if etherType == typeIPv4 {
		if binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 {
			return false // a fragment: the kernel has completed it
		}
		proto, addrs, l4 = pkt[9], pkt[12:20], pkt[int(pkt[0]&15)*4:]
	} else {
		proto, addrs, l4 = pkt[6], pkt[8:40], pkt[ipv6Len:]
	}
	var at int
	switch {
	case proto == protoTCP && len(l4) >= 20:
		at = 16
	case proto == protoUDP && len(l4) >= 8:
		at = 6
	default:
		return false
	}
	field := l4[at : at+2]
	if binary.BigEndian.Uint16(field) != pseudo(addrs, proto, len(l4)) {
		return false
	}
	sum := ^checksum.Checksum(l4, 0) // the pseudo-header is in the field
	if sum == 0 && proto == protoUDP {
		sum = 0xffff // zero means none (RFC 768)
	}
	binary.BigEndian.PutUint16(field, sum)
	return true
}

// pseudo returns the sum of a pseudo-header (RFC 9293 section 3.1, RFC 8200 section
// 8.1), not complemented: addrs are 8 or 32 bytes, and n is below 64 KiB.
func pseudo(addrs []byte, proto byte, n int) uint16 {
	sum := uint64(proto) + uint64(n)
	for ; len(addrs) >= 4; addrs = addrs[4:] {
		sum += uint64(binary.BigEndian.Uint32(addrs))
	}
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum&0xffff)
}

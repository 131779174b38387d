package offload

import "encoding/binary"

const (
	protoTCP = 6
	protoUDP = 17

	ip4Len = 20
	ip6Len = 40
	tcpLen = 20
	udpLen = 8

	// maxPacket bounds an IP packet: the length field of both versions.
	maxPacket = 65535

	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpCWR = 0x80

	// Offsets of the checksum in the transport headers.
	tcpChecksum = 16
	udpChecksum = 6
)

// layout is where the headers of an unfragmented TCP or UDP packet lie.
type layout struct {
	v6    bool
	proto uint8 // protoTCP or protoUDP
	l4    int   // offset of the transport header
	hdr   int   // offset of the payload
}

// parseLayout finds the headers of pkt. ok is false for everything that is not
// one whole TCP or UDP packet with sane lengths. Length fields of the IP header
// are not compared with len(pkt); checksums are not looked at.
func parseLayout(pkt []byte) (l layout, ok bool) {
	if len(pkt) < ip4Len || len(pkt) > maxPacket+ip6Len {
		return layout{}, false
	}
	switch pkt[0] >> 4 {
	case 4:
		l.l4 = int(pkt[0]&15) * 4
		l.proto = pkt[9]
		const moreFragmentsAndOffset = 0x3fff
		if l.l4 < ip4Len || binary.BigEndian.Uint16(pkt[6:])&moreFragmentsAndOffset != 0 {
			return layout{}, false
		}
	case 6:
		l.v6 = true
		if l.l4, l.proto, ok = skipExtensions(pkt); !ok {
			return layout{}, false
		}
	default:
		return layout{}, false
	}
	return l.parseTransport(pkt)
}

// skipExtensions walks the IPv6 header chain over the headers that may stand in
// front of the transport header of a whole packet and leave its pseudo-header
// alone. A routing header changes the destination in the pseudo-header, a
// fragment header means a part of a packet: both fail.
func skipExtensions(pkt []byte) (l4 int, proto uint8, ok bool) {
	const hopByHop, destination = 0, 60
	if len(pkt) < ip6Len {
		return 0, 0, false
	}
	l4, proto = ip6Len, pkt[6]
	for proto == hopByHop || proto == destination {
		if len(pkt) < l4+8 {
			return 0, 0, false
		}
		proto, l4 = pkt[l4], l4+8+8*int(pkt[l4+1])
	}
	return l4, proto, true
}

func (l layout) parseTransport(pkt []byte) (layout, bool) {
	switch l.proto {
	case protoTCP:
		if len(pkt) < l.l4+tcpLen {
			return layout{}, false
		}
		n := int(pkt[l.l4+12]>>4) * 4
		l.hdr = l.l4 + n
		return l, n >= tcpLen && l.hdr <= len(pkt)
	case protoUDP:
		l.hdr = l.l4 + udpLen
		return l, l.hdr <= len(pkt)
	default:
		return layout{}, false
	}
}

// checksumOffset is where the checksum lies in the transport header.
func (l layout) checksumOffset() int {
	if l.proto == protoTCP {
		return tcpChecksum
	}
	return udpChecksum
}

// pseudo is the sum of the pseudo-header without its length.
func (l layout) pseudo(pkt []byte) uint64 {
	acc := word(uint16(l.proto))
	if l.v6 {
		return sum(pkt[8:40], acc)
	}
	return sum(pkt[12:20], acc)
}

package offload

import (
	"bytes"
	"encoding/binary"
)

// flowSlot hashes addresses and ports. It only spreads flows over the table:
// whoever aims at one slot makes super-packets smaller, nothing else.
func flowSlot(l layout, p []byte) int {
	var h uint64
	if l.v6 {
		h = binary.LittleEndian.Uint64(p[8:]) ^ binary.LittleEndian.Uint64(p[16:])*3 ^
			binary.LittleEndian.Uint64(p[24:])*5 ^ binary.LittleEndian.Uint64(p[32:])*7
	} else {
		h = binary.LittleEndian.Uint64(p[12:])
	}
	h ^= (uint64(binary.LittleEndian.Uint32(p[l.l4:])) + uint64(l.proto)) * 0x9e3779b97f4a7c15
	h *= 0x9e3779b97f4a7c15
	return int(h >> 56)
}

// joinable reports whether p could be part of a super-packet at all: nothing
// odd in its headers, a payload, and lengths that agree with each other.
func (c *Coalescer) joinable(l layout, p []byte) bool {
	if len(p) == l.hdr || len(p) > maxPacket || !l.lengthIs(p, len(p)) {
		return false
	}
	if l.v6 && l.l4 != ip6Len || !l.v6 && l.l4 != ip4Len {
		return false // extension headers, IPv4 options
	}
	t := p[l.l4:]
	if l.proto == protoUDP {
		// A datagram without checksum would get one.
		return c.UDP && int(binary.BigEndian.Uint16(t[4:])) == len(t) && binary.BigEndian.Uint16(t[6:]) != 0
	}
	// ACK, perhaps PSH, no reserved bit; and no stray urgent pointer.
	return c.TCP && t[12]&15 == 0 && t[13]&^tcpPSH == tcpACK && binary.BigEndian.Uint16(t[18:]) == 0
}

// pushed reports whether a run ends with p.
func pushed(l layout, p []byte) bool {
	return l.proto == protoTCP && p[l.l4+13]&tcpPSH != 0
}

// continues reports whether p differs from the head of the run only in what the
// cutting of a super-packet counts on by itself.
func (r *run) continues(head, p []byte) bool {
	if r.v6 {
		if !bytes.Equal(head[:4], p[:4]) || !bytes.Equal(head[6:ip6Len], p[6:ip6Len]) {
			return false
		}
	} else if !r.continues4(head, p) {
		return false
	}
	h, t := head[r.l4:r.hdr], p[r.l4:r.hdr]
	if !bytes.Equal(h[:4], t[:4]) {
		return false
	}
	if r.proto == protoUDP {
		return true
	}
	return binary.BigEndian.Uint32(t[4:]) == r.seq &&
		bytes.Equal(h[8:13], t[8:13]) && // acknowledgement, header length
		bytes.Equal(h[14:16], t[14:16]) && // window
		bytes.Equal(h[tcpLen:], t[tcpLen:]) // options
}

// continues4 compares IPv4 headers without length, identification and checksum.
// Without DF the identification has to count on, because somebody may still
// need it to put fragments together; with DF nobody looks at it (RFC 6864).
func (r *run) continues4(head, p []byte) bool {
	const df = 0x40
	return bytes.Equal(head[:2], p[:2]) && bytes.Equal(head[6:10], p[6:10]) && bytes.Equal(head[12:20], p[12:20]) &&
		(head[6]&df != 0 || binary.BigEndian.Uint16(p[4:]) == r.id)
}

// valid reports whether the checksums of p are right.
func (l layout) valid(p []byte) bool {
	if !l.v6 && fold(sum(p[:l.l4], 0)) != 0xffff {
		return false
	}
	n := len(p) - l.l4
	return fold(sum(p[l.l4:], add(l.pseudo(p), word(uint16(n))))) == 0xffff
}

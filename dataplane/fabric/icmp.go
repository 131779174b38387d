package fabric

import (
	"encoding/binary"
	"net/netip"
)

// Bounds of an ICMP error as a whole IP packet: RFC 1812 section 4.3.2.3, and
// RFC 4443 section 2.4(c).
const (
	maxError4 = 576
	maxError6 = 1280

	icmpHeaderLen = 8
	icmpTTL       = 64
	icmpTOS       = 0xc0 // RFC 1812 section 4.3.2.5: precedence "internetwork control"
)

// answer is one kind of ICMP error, in both families. The counter of a kind
// names it; none means no answer.
type answer struct {
	type4, code4 uint8
	type6, code6 uint8
}

// answerOf returns the message of a kind.
func answerOf(kind counter) answer {
	switch kind {
	case icmpTimeExceeded:
		return answer{type4: 11, code4: 0, type6: 3, code6: 0}
	case icmpTooBig:
		return answer{type4: 3, code4: 4, type6: 2, code6: 0}
	case icmpUnreachable: // the host is known but cannot be reached
		return answer{type4: 3, code4: 1, type6: 1, code6: 3}
	case icmpProhibited:
		return answer{type4: 3, code4: 13, type6: 1, code6: 1}
	default: // no route
		return answer{type4: 3, code4: 0, type6: 1, code6: 0}
	}
}

// reply sends an ICMP error about the packet h back to where it came from. It
// must be called before the packet is changed. mtu counts for too big only.
func (f *Fabric) reply(s *scratch, h *header, vtep netip.Addr, kind counter, mtu int) {
	if s.snap.out[s.origin] == nil || !answerable(h) {
		f.counters.add(icmpForbidden, 1)
		return
	}
	if !f.limit.allow(h.src(), f.now()) {
		f.counters.add(icmpRateLimited, 1)
		return
	}
	var b []byte
	if h.v6 {
		b = f.take(s, min(header6Len+icmpHeaderLen+len(h.b), maxError6))
		putError6(b, h, answerOf(kind), mtu)
	} else {
		b = f.take(s, min(header4Len+icmpHeaderLen+len(h.b), maxError4))
		putError4(b, h, answerOf(kind), mtu)
	}
	s.emit(s.origin, b, vtep)
	f.counters.add(kind, 1)
}

// putError4 fills b with an IPv4 error that quotes as much of h as b has room
// for. Its source is h's destination.
func putError4(b []byte, h *header, a answer, mtu int) {
	clear(b[:header4Len+icmpHeaderLen])
	b[0], b[1] = 0x45, icmpTOS
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], flagDF) // and so identification is free: RFC 6864
	b[8], b[9] = icmpTTL, protoICMP
	copy(b[12:16], h.b[16:20])
	copy(b[16:20], h.b[12:16])
	setChecksum4(b[:header4Len])

	m := b[header4Len:]
	m[0], m[1] = a.type4, a.code4
	if a.type4 == 3 && a.code4 == 4 {
		binary.BigEndian.PutUint16(m[6:], uint16(mtu)) // RFC 1191 section 4
	}
	copy(m[icmpHeaderLen:], h.b)
	binary.BigEndian.PutUint16(m[2:], ^fold(sum(0, m)))
}

// putError6 is putError4 for IPv6.
func putError6(b []byte, h *header, a answer, mtu int) {
	clear(b[:header6Len+icmpHeaderLen])
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-header6Len))
	b[6], b[7] = protoICMP6, icmpTTL
	copy(b[8:24], h.b[24:40])
	copy(b[24:40], h.b[8:24])

	m := b[header6Len:]
	m[0], m[1] = a.type6, a.code6
	if a.type6 == 2 {
		binary.BigEndian.PutUint32(m[4:], uint32(mtu))
	}
	copy(m[icmpHeaderLen:], h.b)
	binary.BigEndian.PutUint16(m[2:], ^fold(sum(pseudo6(b, protoICMP6, len(m)), m)))
}

// answerable reports whether an error about h may be sent at all: not about a
// later fragment, and not about an ICMP error (RFC 1122 section 3.2.2, RFC 4443
// section 2.4(e)), for two routers would answer each other for ever. Multicast
// and broadcast never get this far.
func answerable(h *header) bool {
	t, ok := h.transport()
	if !ok || t.later {
		return false
	}
	switch {
	case !h.v6 && t.proto == protoICMP:
		return len(t.b) > 0 && isQuery4(t.b[0])
	case h.v6 && t.proto == protoICMP6:
		// 137 is Redirect, the one informational type that counts as an error.
		return len(t.b) > 0 && t.b[0] >= 128 && t.b[0] != 137
	case h.v6 && extended(t.proto):
		return false // the chain is too long to know what it ends in
	}
	return true
}

// isQuery4 reports whether an ICMP type is known not to be an error.
func isQuery4(t uint8) bool {
	switch t {
	case 0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43:
		return true
	}
	return false
}

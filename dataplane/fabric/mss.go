package fabric

import (
	"encoding/binary"
	"math/bits"
)

const (
	tcpHeaderLen = 20
	tcpFlagSYN   = 0x02
	tcpOptEnd    = 0
	tcpOptNop    = 1
	tcpOptMSS    = 2
)

// mssFor is the largest TCP segment that fits an MTU: less an IP header without
// options and a TCP header without (RFC 6691).
func mssFor(mtu int, v6 bool) uint16 {
	if v6 {
		return uint16(mtu - header6Len - tcpHeaderLen)
	}
	return uint16(mtu - header4Len - tcpHeaderLen)
}

// maySYN reports whether the packet can be a SYN: cheaply, as every packet is
// asked. Behind IPv6 extension headers anything may be.
func (h *header) maySYN() bool {
	if h.proto != protoTCP {
		return h.v6 && extended(h.proto)
	}
	return len(h.b) > h.hlen+13 && h.b[h.hlen+13]&tcpFlagSYN != 0
}

// isSYN reports whether b begins with a whole TCP header of a SYN or SYN/ACK.
func isSYN(b []byte) bool { return len(b) >= tcpHeaderLen && b[13]&tcpFlagSYN != 0 }

// clampMSS lowers the MSS option of the TCP header at the start of b to limit,
// and the checksum with it. It reports whether it changed anything. It never
// raises a value and never adds the option. A malformed header is left alone:
// it is the receiver's to judge.
func clampMSS(b []byte, limit uint16) bool {
	end := int(b[12]>>4) * 4
	if end < tcpHeaderLen || end > len(b) {
		return false
	}
	changed := false
	for i := tcpHeaderLen; i < end; {
		switch b[i] {
		case tcpOptEnd:
			return changed
		case tcpOptNop:
			i++
			continue
		}
		if i+1 >= end {
			return changed
		}
		n := int(b[i+1])
		if n < 2 || i+n > end {
			return changed
		}
		if b[i] == tcpOptMSS && n == 4 {
			changed = lowerMSS(b, i+2, limit) || changed
		}
		i += n
	}
	return changed
}

// lowerMSS lowers the 16-bit value at b[at:].
func lowerMSS(b []byte, at int, limit uint16) bool {
	old := binary.BigEndian.Uint16(b[at:])
	if old <= limit {
		return false
	}
	binary.BigEndian.PutUint16(b[at:], limit)
	now := limit
	if at%2 != 0 {
		// The value lies across two words: RFC 1071 section 2(B), a swap of
		// the bytes swaps the bytes of the sum.
		old, now = bits.ReverseBytes16(old), bits.ReverseBytes16(now)
	}
	check := binary.BigEndian.Uint16(b[16:])
	binary.BigEndian.PutUint16(b[16:], update(check, old, now))
	return true
}

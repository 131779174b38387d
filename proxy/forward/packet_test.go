package forward

import (
	"encoding/binary"
	"net/netip"
)

// sum is the Internet checksum, RFC 1071.
func sum(parts ...[]byte) uint16 {
	var s uint32
	for _, b := range parts {
		for i := 0; i+1 < len(b); i += 2 {
			s += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if len(b)%2 == 1 {
			s += uint32(b[len(b)-1]) << 8
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func ip4(src, dst netip.Addr, protocol byte, body []byte) []byte {
	b := make([]byte, 20, 20+len(body))
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(body)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], sum(b))
	return append(b, body...)
}

// syn is a packet that asks for a connection.
func syn(src netip.Addr, to netip.AddrPort, port uint16) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, port)
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint32(b[4:], 12345)
	b[12], b[13], b[14] = 5<<4, 2, 0xff
	pseudo := append(append(src.AsSlice(), to.Addr().AsSlice()...), 0, 6, 0, 20)
	binary.BigEndian.PutUint16(b[16:], sum(pseudo, b))
	return ip4(src, to.Addr(), 6, b)
}

// echo is an echo request.
func echo(src, dst netip.Addr, id, seq uint16, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[2:], sum(b))
	return ip4(src, dst, 1, b)
}

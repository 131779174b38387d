package offload

import (
	"encoding/binary"
	"net/netip"

	"corax/dataplane"
)

// spec describes a packet for build: the naive way to make one.
type spec struct {
	v6      bool
	udp     bool
	src     netip.Addr
	sport   uint16
	id      uint16
	df      bool
	ttl     byte
	tos     byte
	flow    byte // IPv6 flow label, low byte
	ext     []byte
	ipOpt   []byte
	seq     uint32
	ack     uint32
	flags   byte
	window  uint16
	urgent  uint16
	options []byte
	payload []byte
	frag    uint16
}

var (
	src4 = netip.MustParseAddr("10.1.0.1")
	dst4 = netip.MustParseAddr("10.2.0.2")
	src6 = netip.MustParseAddr("fd00:1::1")
	dst6 = netip.MustParseAddr("fd00:2::2")

	timestamps = []byte{1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 7}
)

func (s spec) transport() []byte {
	if s.udp {
		b := make([]byte, 8, 8+len(s.payload))
		binary.BigEndian.PutUint16(b, s.sport)
		binary.BigEndian.PutUint16(b[2:], 443)
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(s.payload)))
		return append(b, s.payload...)
	}
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, s.sport)
	binary.BigEndian.PutUint16(b[2:], 443)
	binary.BigEndian.PutUint32(b[4:], s.seq)
	binary.BigEndian.PutUint32(b[8:], s.ack)
	b[12] = byte((20+len(s.options))/4) << 4
	b[13] = s.flags
	binary.BigEndian.PutUint16(b[14:], s.window)
	binary.BigEndian.PutUint16(b[18:], s.urgent)
	b = append(b, s.options...)
	return append(b, s.payload...)
}

// build makes the packet with complete checksums.
func (s spec) build() []byte {
	proto := byte(protoTCP)
	if s.udp {
		proto = protoUDP
	}
	t := s.transport()
	var p []byte
	src := s.src
	if s.v6 {
		if !src.IsValid() {
			src = src6
		}
		p = make([]byte, 40)
		p[0], p[1], p[3] = 0x60|s.tos>>4, s.tos<<4, s.flow
		binary.BigEndian.PutUint16(p[4:], uint16(len(s.ext)+len(t)))
		p[6], p[7] = proto, s.ttl
		copy(p[8:], src.AsSlice())
		copy(p[24:], dst6.AsSlice())
		if len(s.ext) > 0 {
			p[6] = s.ext[0] // kind of the extension header, replaced by what follows it
			p = append(p, s.ext...)
			p[40] = proto
		}
	} else {
		if !src.IsValid() {
			src = src4
		}
		p = make([]byte, 20)
		p[0], p[1] = 0x40|byte(5+len(s.ipOpt)/4), s.tos
		binary.BigEndian.PutUint16(p[2:], uint16(20+len(s.ipOpt)+len(t)))
		binary.BigEndian.PutUint16(p[4:], s.id)
		binary.BigEndian.PutUint16(p[6:], s.frag)
		if s.df {
			p[6] |= 0x40
		}
		p[8], p[9] = s.ttl, proto
		copy(p[12:], src.AsSlice())
		copy(p[16:], dst4.AsSlice())
		p = append(p, s.ipOpt...)
		binary.BigEndian.PutUint16(p[10:], naive(p))
	}
	l4 := len(p)
	p = append(p, t...)
	at := l4 + tcpChecksum
	if s.udp {
		at = l4 + udpChecksum
	}
	c := naive(pseudoOf(p, l4, proto), p[l4:])
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(p[at:], c)
	return p
}

// pseudoOf is the pseudo-header as bytes.
func pseudoOf(p []byte, l4 int, proto byte) []byte {
	var b []byte
	if p[0]>>4 == 6 {
		b = append(b, p[8:40]...)
	} else {
		b = append(b, p[12:20]...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(p)-l4))
	return append(b, 0, 0, 0, proto)
}

// naive is the checksum of RFC 1071, two bytes at a time, complemented. Pieces
// but the last have an even length.
func naive(pieces ...[]byte) uint16 {
	var s uint32
	for _, b := range pieces {
		for i, x := range b {
			if i%2 == 0 {
				s += uint32(x) << 8
			} else {
				s += uint32(x)
			}
			s = s>>16 + s&0xffff
		}
	}
	return ^uint16(s>>16 + s&0xffff)
}

// super turns one big packet with complete checksums into what the kernel hands
// to a TUN.
func super(p []byte, gso int) (Header, []byte) {
	l, ok := parseLayout(p)
	if !ok {
		panic("super: not TCP or UDP")
	}
	binary.BigEndian.PutUint16(p[l.l4+l.checksumOffset():], ^naive(pseudoOf(p, l.l4, l.proto)))
	return Header{
		Flags: FlagNeedsChecksum, GSOType: l.gsoType(), GSOSize: uint16(gso),
		ChecksumStart: uint16(l.l4), ChecksumOffset: uint16(l.checksumOffset()),
	}, p
}

// cut runs a Splitter to its end.
func cut(h Header, p []byte) ([][]byte, error) {
	var s Splitter
	if err := s.Reset(h, p); err != nil {
		return nil, err
	}
	var out [][]byte
	for s.Size() > 0 {
		out = append(out, s.Next(make([]byte, s.Size())))
	}
	return out, nil
}

// unwrite turns a write back into packets: what the kernel would deliver.
func unwrite(w Write) ([][]byte, error) {
	var b []byte
	for _, v := range w.Vec {
		b = append(b, v...)
	}
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	if !h.Super() {
		return [][]byte{b[HeaderLen:]}, nil
	}
	return cut(h, b[HeaderLen:])
}

func pattern(n, from int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((from + i) * 7)
	}
	return b
}

func packets(ps ...[]byte) []dataplane.Packet {
	out := make([]dataplane.Packet, len(ps))
	for i, p := range ps {
		out[i].Data = p
	}
	return out
}

// good reports whether all checksums of p are right, the naive way.
func good(p []byte) bool {
	l, ok := parseLayout(p)
	if !ok {
		return false
	}
	if !l.v6 && naive(p[:l.l4]) != 0 {
		return false
	}
	return naive(pseudoOf(p, l.l4, l.proto), p[l.l4:]) == 0
}

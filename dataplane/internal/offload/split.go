package offload

import (
	"encoding/binary"
	"errors"
)

// Errors of [Splitter.Reset] and [Complete]: the packet is to be dropped.
var (
	// ErrMalformed: header and packet contradict each other.
	ErrMalformed = errors.New("offload: malformed packet")
	// ErrUnsupported: a kind of super-packet that was not asked for, or with
	// IPv6 extension headers that change its checksum.
	ErrUnsupported = errors.New("offload: unsupported super-packet")
)

// Complete finishes the checksum of a packet that is not a super-packet, in
// place. It does nothing when the header does not ask for it.
func Complete(h Header, pkt []byte) error {
	if h.Flags&FlagNeedsChecksum == 0 {
		return nil
	}
	start := int(h.ChecksumStart)
	at := start + int(h.ChecksumOffset)
	if at+2 > len(pkt) {
		return ErrMalformed
	}
	// The field itself holds the sum of the pseudo-header, so it is part of
	// what is added up.
	c := finish(sum(pkt[start:], 0))
	binary.BigEndian.PutUint16(pkt[at:], c)
	return nil
}

// Splitter cuts one super-packet into the packets that the kernel would have
// sent without offload: own IP header each, IPv4 identification and TCP
// sequence number counted on, FIN and PSH on the last only, CWR on the first
// only, complete checksums. The zero value has nothing to cut. It is used by
// one goroutine.
type Splitter struct {
	layout
	header  []byte // headers of the super-packet
	payload []byte // what is left to send
	gso     int
	first   bool

	id    uint16
	seq   uint32
	flags uint8 // TCP flags of the super-packet

	ipSum uint64 // IPv4 header without length, identification and checksum
	l4Sum uint64 // pseudo-header without length; transport header without what changes
}

// Reset starts cutting pkt, whose virtio-net header was h. The Splitter keeps
// pkt and reads it until [Splitter.Size] is zero. On error there is nothing to
// cut.
func (s *Splitter) Reset(h Header, pkt []byte) error {
	*s = Splitter{}
	l, ok := parseLayout(pkt)
	if !ok {
		return ErrUnsupported
	}
	if !l.matches(h.GSOType) {
		return ErrUnsupported
	}
	// ChecksumStart is the kernel's own idea of where the transport header is.
	// h.HeaderLen is only a hint (it may count too little), so it is not used.
	if h.Flags&FlagNeedsChecksum == 0 || int(h.ChecksumStart) != l.l4 ||
		int(h.ChecksumOffset) != l.checksumOffset() || h.GSOSize == 0 || len(pkt) == l.hdr {
		return ErrMalformed
	}
	if !l.lengthIs(pkt, len(pkt)) {
		return ErrMalformed
	}
	s.layout = l
	s.header, s.payload = pkt[:l.hdr], pkt[l.hdr:]
	s.gso = int(h.GSOSize)
	s.first = true
	s.prepare()
	return nil
}

func (l layout) matches(gsoType uint8) bool {
	switch gsoType &^ GSOECN {
	case GSOTCP4:
		return l.proto == protoTCP && !l.v6
	case GSOTCP6:
		return l.proto == protoTCP && l.v6
	case GSOUDP:
		return l.proto == protoUDP && gsoType&GSOECN == 0
	default:
		return false
	}
}

// lengthIs reports whether the IP header says that the packet has n bytes.
func (l layout) lengthIs(pkt []byte, n int) bool {
	if l.v6 {
		return int(binary.BigEndian.Uint16(pkt[4:]))+ip6Len == n
	}
	return int(binary.BigEndian.Uint16(pkt[2:])) == n
}

// prepare adds up, once, what stays the same in every packet.
func (s *Splitter) prepare() {
	h := s.header
	if !s.v6 {
		s.id = binary.BigEndian.Uint16(h[4:])
		s.ipSum = sum(h[12:s.l4], sum(h[6:10], sum(h[:2], 0)))
	}
	t := h[s.l4:]
	s.l4Sum = s.pseudo(h)
	if s.proto == protoUDP {
		s.l4Sum = sum(t[:4], s.l4Sum)
		return
	}
	s.seq = binary.BigEndian.Uint32(t[4:])
	s.flags = t[13]
	s.l4Sum = sum(t[:4], s.l4Sum)
	s.l4Sum = sum(t[8:12], s.l4Sum)
	s.l4Sum = add(s.l4Sum, word(uint16(t[12])<<8))
	s.l4Sum = sum(t[14:16], s.l4Sum)
	s.l4Sum = sum(t[18:], s.l4Sum)
}

// Size returns the length in bytes of the next packet, zero when there is none.
func (s *Splitter) Size() int {
	if len(s.payload) == 0 {
		return 0
	}
	return s.hdr + min(s.gso, len(s.payload))
}

// Next writes the next packet to the start of dst and returns that part of dst.
// It returns nil when there is none, or dst is smaller than [Splitter.Size].
func (s *Splitter) Next(dst []byte) []byte {
	size := s.Size()
	if size == 0 || len(dst) < size {
		return nil
	}
	p := dst[:size:size]
	n := size - s.hdr
	copy(p, s.header)
	copy(p[s.hdr:], s.payload[:n])
	s.payload = s.payload[n:]

	s.putIP(p)
	acc := sum(p[s.hdr:], add(s.l4Sum, word(uint16(size-s.l4))))
	if s.proto == protoTCP {
		acc = s.putTCP(p[s.l4:], acc, n)
	} else {
		l := uint16(size - s.l4)
		binary.BigEndian.PutUint16(p[s.l4+4:], l)
		acc = add(acc, word(l))
	}
	binary.BigEndian.PutUint16(p[s.l4+s.checksumOffset():], finish(acc))
	s.first = false
	return p
}

func (s *Splitter) putIP(p []byte) {
	if s.v6 {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-ip6Len))
		return
	}
	n := uint16(len(p))
	binary.BigEndian.PutUint16(p[2:], n)
	binary.BigEndian.PutUint16(p[4:], s.id)
	binary.BigEndian.PutUint16(p[10:], ^fold(add(s.ipSum, word(n)+word(s.id))))
	s.id++
}

// putTCP writes what differs from packet to packet into the TCP header t,
// returns the sum with it, and counts on by n bytes of payload.
func (s *Splitter) putTCP(t []byte, acc uint64, n int) uint64 {
	flags := s.flags
	if len(s.payload) > 0 {
		flags &^= tcpFIN | tcpPSH
	}
	if !s.first {
		flags &^= tcpCWR
	}
	t[13] = flags
	binary.BigEndian.PutUint32(t[4:], s.seq)
	acc = add(acc, word(uint16(flags))+long(s.seq))
	// In 32 bits, and by addition: a product of 16-bit numbers overflows.
	s.seq += uint32(n)
	return acc
}

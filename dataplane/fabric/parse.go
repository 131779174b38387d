package fabric

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers: IANA "Assigned Internet Protocol Numbers".
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoRouting  = 43
	protoFragment = 44
	protoAuth     = 51
	protoICMP6    = 58
	protoDestOpts = 60
	protoMobility = 135
	protoHIP      = 139
	protoShim6    = 140
)

const (
	header4Len = 20
	header6Len = 40

	flagDF     = 0x4000
	flagMF     = 0x2000
	offsetMask = 0x1fff

	// maxExtensions bounds the walk over IPv6 extension headers. Real packets
	// have two or three; a longer chain is taken as opaque payload.
	maxExtensions = 8
)

// header is a checked view of one packet.
type header struct {
	b     []byte // from the first byte to the end that the header names
	hlen  int    // of the IPv4 header with options, or of the fixed IPv6 header
	proto uint8  // IPv4 protocol, or the first IPv6 next header
	v6    bool
}

// parse makes h a view of b. It checks version, lengths and, for IPv4, checksum
// and fragment bounds. Padding behind the packet is cut off. The reason is zero
// when all is well; otherwise h is not to be used.
func (h *header) parse(b []byte) (drop counter) {
	if len(b) < header4Len {
		return dropBadHeader
	}
	switch b[0] >> 4 {
	case 4:
		return h.parse4(b)
	case 6:
		return h.parse6(b)
	default:
		return dropBadHeader
	}
}

func (h *header) parse4(b []byte) (drop counter) {
	hlen := int(b[0]&15) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if hlen < header4Len || total < hlen || total > len(b) {
		return dropBadHeader
	}
	var check uint16
	if hlen == header4Len {
		check = headerSum((*[20]byte)(b))
	} else {
		check = fold(sum(0, b[:hlen]))
	}
	if check != 0xffff {
		return dropBadChecksum
	}
	if frag := binary.BigEndian.Uint16(b[6:]); frag&(flagMF|offsetMask) != 0 {
		payload := total - hlen
		// The attacks stopped: a last fragment that ends beyond 65,535 bytes,
		// and pieces that do not fit together.
		if int(frag&offsetMask)*8+payload+hlen > 0xffff || frag&flagMF != 0 && payload%8 != 0 {
			return dropBadFragment
		}
	}
	h.b, h.hlen, h.proto, h.v6 = b[:total:total], hlen, b[9], false
	return none
}

func (h *header) parse6(b []byte) (drop counter) {
	if len(b) < header6Len {
		return dropBadHeader
	}
	total := header6Len + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return dropBadHeader
	}
	h.b, h.hlen, h.proto, h.v6 = b[:total:total], header6Len, b[6], true
	return none
}

func (h *header) src() netip.Addr {
	if h.v6 {
		return netip.AddrFrom16([16]byte(h.b[8:24]))
	}
	return netip.AddrFrom4([4]byte(h.b[12:16]))
}

func (h *header) dst() netip.Addr {
	if h.v6 {
		return netip.AddrFrom16([16]byte(h.b[24:40]))
	}
	return netip.AddrFrom4([4]byte(h.b[16:20]))
}

func (h *header) ttl() uint8 {
	if h.v6 {
		return h.b[7]
	}
	return h.b[8]
}

// decrement takes one hop off.
func (h *header) decrement() {
	if h.v6 {
		h.b[7]--
		return
	}
	old := binary.BigEndian.Uint16(h.b[8:])
	check := binary.BigEndian.Uint16(h.b[10:])
	h.b[8]--
	binary.BigEndian.PutUint16(h.b[10:], update(check, old, old-0x100))
}

// frag4 returns flags and fragment offset of an IPv4 packet.
func (h *header) frag4() uint16 { return binary.BigEndian.Uint16(h.b[6:]) }

// transport is where the payload of the outermost IP header begins.
type transport struct {
	proto uint8
	b     []byte // from the upper-layer header on; empty when cut short
	// later says that the packet is a fragment other than the first, so that
	// b is not the beginning of an upper-layer header.
	later bool
}

// transport finds the upper-layer header. ok is false when the chain of
// extension headers runs past the end of the packet; a chain that is too long,
// or has a header of unknown form, ends at that header.
func (h *header) transport() (t transport, ok bool) {
	if !h.v6 {
		return transport{h.proto, h.b[h.hlen:], h.frag4()&offsetMask != 0}, true
	}
	t = transport{proto: h.proto, b: h.b[header6Len:]}
	for range maxExtensions {
		var n int
		switch t.proto {
		case protoHopByHop, protoRouting, protoDestOpts, protoMobility, protoHIP, protoShim6:
			if len(t.b) < 2 {
				return t, false
			}
			n = (int(t.b[1]) + 1) * 8
		case protoAuth:
			if len(t.b) < 2 {
				return t, false
			}
			n = (int(t.b[1]) + 2) * 4
		case protoFragment:
			if len(t.b) < 8 {
				return t, false
			}
			n = 8
			t.later = binary.BigEndian.Uint16(t.b[2:])&^7 != 0
		default:
			return t, true
		}
		if n > len(t.b) {
			return t, false
		}
		t.proto, t.b = t.b[0], t.b[n:]
		if t.later {
			return t, true // what follows is the middle of something
		}
	}
	return t, true
}

// extended reports whether an IPv6 next header needs a walk to find out what
// the packet carries.
func extended(proto uint8) bool {
	switch proto {
	case protoHopByHop, protoRouting, protoFragment, protoAuth, protoDestOpts, protoMobility, protoHIP, protoShim6:
		return true
	}
	return false
}

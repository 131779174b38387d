package vxlan

import "encoding/binary"

// Sizes in bytes.
const (
	vxlanLen    = 8
	ethernetLen = 14
	headerLen   = vxlanLen + ethernetLen // in front of every inner packet
)

const (
	flagVNI = 0x08 // the I flag: the VNI is valid

	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
)

// header is what goes in front of an inner packet.
type header [headerLen]byte

func makeHeader(vni VNI, dst, src MAC, etherType uint16) (h header) {
	h[0] = flagVNI
	binary.BigEndian.PutUint32(h[4:], uint32(vni)<<8)
	copy(h[8:], dst[:])
	copy(h[14:], src[:])
	binary.BigEndian.PutUint16(h[20:], etherType)
	return h
}

// frame is one inner Ethernet frame. It aliases the datagram.
type frame struct {
	dst, src  MAC
	etherType uint16
	ethernet  []byte // the whole frame, its header included
	payload   []byte
}

// parse makes f the frame in a datagram (RFC 7348 section 5). Of the flags only I
// counts, and the reserved bits are ignored, as the RFC says. A frame with an
// inner VLAN tag keeps the tag's ethertype, which nobody here accepts. With a
// reason to drop it f is not to be used.
func (f *frame) parse(b []byte, vni VNI) drop {
	if len(b) < headerLen {
		return dropShort
	}
	if b[0]&flagVNI == 0 {
		return dropFlags
	}
	if VNI(binary.BigEndian.Uint32(b[4:])>>8) != vni {
		return dropVNI
	}
	f.dst, f.src = MAC(b[8:14]), MAC(b[14:20])
	f.etherType = binary.BigEndian.Uint16(b[20:])
	f.ethernet, f.payload = b[vxlanLen:], b[headerLen:]
	if f.src.group() {
		return dropMAC // no station has it; learning it would be a black hole
	}
	return dropNone
}

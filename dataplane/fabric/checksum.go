package fabric

import (
	"encoding/binary"
	"math/bits"
)

// sum adds b to the ones' complement sum acc (RFC 1071), as 16-bit big-endian
// words; a last odd byte counts as a word with a zero after it. Only the last
// of several parts may have an odd length.
func sum(acc uint64, b []byte) uint64 {
	var carry uint64
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), 0)
		acc += carry // cannot overflow: acc wrapped when carry is set
		b = b[8:]
	}
	for len(b) >= 2 {
		acc, carry = bits.Add64(acc, uint64(binary.BigEndian.Uint16(b)), 0)
		acc += carry
		b = b[2:]
	}
	if len(b) == 1 {
		acc, carry = bits.Add64(acc, uint64(b[0])<<8, 0)
		acc += carry
	}
	return acc
}

// fold brings a sum to 16 bits. Its complement is the checksum.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// headerSum is fold(sum(0, b[:20])), the length of nearly every IPv4 header.
func headerSum(b *[20]byte) uint16 {
	acc, c1 := bits.Add64(binary.BigEndian.Uint64(b[0:8]), binary.BigEndian.Uint64(b[8:16]), 0)
	acc, c2 := bits.Add64(acc, uint64(binary.BigEndian.Uint32(b[16:20])), c1)
	return fold(acc>>32 + acc&0xffffffff + c2)
}

// update returns the checksum check after one 16-bit word of what it covers
// changed from old to now: RFC 1624, equation 3.
func update(check, old, now uint16) uint16 {
	acc := uint32(^check) + uint32(^old) + uint32(now)
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return ^uint16(acc)
}

// pseudo6 is the sum of the IPv6 pseudo-header (RFC 8200 section 8.1) of a
// packet whose fixed header is ip.
func pseudo6(ip []byte, proto uint8, length int) uint64 {
	return sum(uint64(length)+uint64(proto), ip[8:40])
}

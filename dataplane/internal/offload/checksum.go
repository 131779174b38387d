package offload

import (
	"encoding/binary"
	"math/bits"
)

// sum adds b to the ones-complement sum acc, eight bytes a step. It works on
// little-endian words, which RFC 1071 section 2(B) allows; only fold knows. A
// piece of odd length is padded with zero, so only the last one may be odd.
//
// Four words share one carry chain: the carry is the only dependency between
// the steps, and end-around carries may be added at any time.
func sum(b []byte, acc uint64) uint64 {
	var carry uint64
	for len(b) >= 64 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[32:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[40:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[48:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[56:]), carry)
		acc, carry = bits.Add64(acc, carry, 0)
		acc += carry
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	if len(b) >= 4 {
		acc = add(acc, uint64(binary.LittleEndian.Uint32(b)))
		b = b[4:]
	}
	var tail uint64
	if len(b) >= 2 {
		tail = uint64(binary.LittleEndian.Uint16(b))
		if len(b) == 3 {
			tail |= uint64(b[2]) << 16
		}
	} else if len(b) == 1 {
		tail = uint64(b[0])
	}
	return add(acc, tail)
}

// add is ones-complement addition of two partial sums.
func add(a, b uint64) uint64 {
	s, carry := bits.Add64(a, b, 0)
	return s + carry
}

// word is a 16-bit number in network order as an operand of add.
func word(v uint16) uint64 { return uint64(bits.ReverseBytes16(v)) }

// long is the same for a 32-bit number.
func long(v uint32) uint64 { return uint64(bits.ReverseBytes32(v)) }

// fold brings a partial sum to the 16 bits that go into a header, in host
// order, not complemented.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return bits.ReverseBytes16(uint16(acc))
}

// finish complements a sum. Zero becomes all ones: in UDP zero means that there
// is no checksum, and for TCP both are the same number.
func finish(acc uint64) uint16 {
	if c := ^fold(acc); c != 0 {
		return c
	}
	return 0xffff
}

package fabric

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestSumAgainstNaive(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		b := make([]byte, n)
		for range 20 {
			for i := range b {
				b[i] = byte(rnd.Uint32())
				if rnd.IntN(3) == 0 {
					b[i] = 0xff // carries
				}
			}
			if got, want := fold(sum(0, b)), naiveSum(b); got != want {
				t.Fatalf("sum of %x is %04x, want %04x", b, got, want)
			}
			if n >= 20 {
				if got, want := headerSum((*[20]byte)(b)), naiveSum(b[:20]); got != want {
					t.Fatalf("headerSum of %x is %04x, want %04x", b[:20], got, want)
				}
			}
		}
	}
}

// TestSumRFC1071 is the example of RFC 1071 section 3.
func TestSumRFC1071(t *testing.T) {
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}
	if got := fold(sum(0, b)); got != 0xddf2 {
		t.Errorf("sum %04x, want ddf2", got)
	}
}

// TestUpdateAgainstRecompute changes words of random data and compares with a
// whole computation; the corner of RFC 1624 section 4 is among them.
func TestUpdateAgainstRecompute(t *testing.T) {
	if got := update(0xdd2f, 0x5555, 0x3285); got != 0x0000 {
		t.Errorf("RFC 1624 example gives %04x, want 0000", got)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	edges := []uint16{0, 1, 0xfffe, 0xffff}
	for range 20_000 {
		b := make([]byte, 20)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		check := ^naiveSum(b)
		at := rnd.IntN(9) * 2
		old := binary.BigEndian.Uint16(b[at:])
		now := uint16(rnd.Uint32())
		if rnd.IntN(2) == 0 {
			now = edges[rnd.IntN(len(edges))]
		}
		binary.BigEndian.PutUint16(b[at:], now)
		got, want := update(check, old, now), ^naiveSum(b)
		if got != want && !(got^want == 0xffff && (got == 0 || want == 0)) {
			t.Fatalf("update(%04x, %04x, %04x) is %04x, want %04x", check, old, now, got, want)
		}
	}
}

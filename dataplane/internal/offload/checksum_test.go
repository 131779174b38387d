package offload

import (
	"math/rand/v2"
	"testing"
)

func TestChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 3000)
	for n := range 2100 {
		for i := range buf {
			switch r.IntN(4) {
			case 0:
				buf[i] = 0xff // carries
			case 1:
				buf[i] = 0
			default:
				buf[i] = byte(r.Uint32())
			}
		}
		from := r.IntN(8)
		if got, want := ^fold(sum(buf[from:from+n], 0)), naive(buf[from:from+n]); got != want && got != ^want {
			t.Fatalf("%d bytes: %#x, want %#x", n, got, want)
		}
		even := n &^ 1
		if got, want := fold(sum(buf[even:n+5], sum(buf[:even], 0))), fold(sum(buf[:n+5], 0)); got != want {
			t.Fatalf("in two pieces %#x, in one %#x", got, want)
		}
	}
}

func TestChecksumAllOnes(t *testing.T) {
	for n := 1; n < 300; n++ {
		b := make([]byte, n)
		for i := range b {
			b[i] = 0xff
		}
		if got, want := ^fold(sum(b, ^uint64(0))), naive(b); got != want {
			t.Fatalf("%d bytes of ones on a full accumulator: %#x, want %#x", n, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	if got := fold(add(word(0x1234), word(0x0001))); got != 0x1235 {
		t.Errorf("word: %#x", got)
	}
	if got := fold(long(0x00010002)); got != 3 {
		t.Errorf("long: %#x", got)
	}
	if got := finish(word(0xffff)); got != 0xffff {
		t.Errorf("finish of all ones: %#x, want 0xffff, because zero means no checksum", got)
	}
}

func FuzzChecksum(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		want := naive(b)
		at := min(int(cut)*2, len(b))
		got := ^fold(sum(b[at:], sum(b[:at], 0)))
		if at%2 == 0 && got != want {
			t.Fatalf("%#x, want %#x", got, want)
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	buf := pattern(1408, 0)
	b.SetBytes(int64(len(buf)))
	var acc uint64
	for b.Loop() {
		acc = sum(buf, acc)
	}
	if acc == 0 {
		b.Fatal("zero")
	}
}

package wg

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// message makes a datagram of n bytes that starts with head.
func message(n int, head ...byte) []byte {
	b := make([]byte, n)
	copy(b, head)
	return b
}

func TestClassify(t *testing.T) {
	stun := message(20, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42)
	for _, c := range []struct {
		name string
		b    []byte
		want Kind
	}{
		{"empty", nil, KindUnknown},
		{"seven bytes", message(7, 4), KindUnknown},
		{"initiation", message(148, 1), KindInitiation},
		{"short initiation", message(147, 1), KindUnknown},
		{"long initiation", message(149, 1), KindUnknown},
		{"response", message(92, 2), KindResponse},
		{"long response", message(93, 2), KindUnknown},
		{"cookie reply", message(64, 3), KindCookieReply},
		{"short cookie reply", message(63, 3), KindUnknown},
		{"keepalive", message(32, 4), KindData},
		{"short data", message(31, 4), KindUnknown},
		{"data of odd length", message(1407, 4), KindData},
		{"type 5", message(148, 5), KindUnknown},
		{"reserved byte set", message(148, 1, 1), KindUnknown},
		{"last reserved byte set", message(148, 1, 0, 0, 1), KindUnknown},
		{"STUN binding request", stun, KindSTUN},
		{"STUN cut short", stun[:19], KindUnknown},
		{"STUN without cookie", message(20, 0, 1), KindUnknown},
		{"top bits set", message(20, 0xC0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42), KindUnknown},
		{"relay frame", message(8, 0xC5), KindRelay},
		{"relay frame cut short", message(7, 0xC5), KindUnknown},
		{
			"data whose receiver index is the STUN cookie",
			message(48, 4, 0, 0, 0, 0x21, 0x12, 0xA4, 0x42), KindData,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Classify(c.b); got != c.want {
				t.Errorf("Classify = %v, want %v", got, c.want)
			}
		})
	}
}

func TestClassifyAllocs(t *testing.T) {
	b := message(1400, 4)
	if n := testing.AllocsPerRun(1000, func() { Classify(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzClassify(f *testing.F) {
	for _, n := range []int{0, 8, 20, 32, 64, 92, 148} {
		for head := range byte(6) {
			f.Add(message(n, head))
		}
	}
	f.Add(message(20, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42))
	f.Add(message(30, 0xC5))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		kind := Classify(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the datagram was changed")
		}
		// What the readers of each kind take for granted.
		typed := len(b) >= 4 && b[1] == 0 && b[2] == 0 && b[3] == 0
		switch kind {
		case KindInitiation:
			if len(b) != 148 || !typed || b[0] != 1 {
				t.Fatalf("initiation: % x", b)
			}
		case KindResponse:
			if len(b) != 92 || !typed || b[0] != 2 {
				t.Fatalf("response: % x", b)
			}
		case KindCookieReply:
			if len(b) != 64 || !typed || b[0] != 3 {
				t.Fatalf("cookie reply: % x", b)
			}
		case KindData:
			if len(b) < 32 || !typed || b[0] != 4 {
				t.Fatalf("data: % x", b)
			}
		case KindRelay:
			if len(b) < 8 || b[0] != 0xC5 {
				t.Fatalf("relay: % x", b)
			}
		case KindSTUN:
			if len(b) < 20 || b[0] > 0x3F || binary.BigEndian.Uint32(b[4:]) != stunCookie {
				t.Fatalf("STUN: % x", b)
			}
		}
	})
}

package fabric

import (
	"net/netip"
	"slices"
	"testing"
)

func TestParseDrops(t *testing.T) {
	v4 := spec{src: "10.1.0.5", dst: "10.2.0.5"}.udp(make([]byte, 8)).build()
	v6 := spec{src: "fd00:1::5", dst: "fd00:2::5"}.udp(make([]byte, 8)).build()
	change := func(b []byte, f func(b []byte)) []byte {
		b = slices.Clone(b)
		f(b)
		return b
	}
	reset := func(b []byte, f func(b []byte)) []byte { // with a valid checksum
		return change(b, func(b []byte) { f(b); setChecksum4(b[:20]) })
	}
	tests := []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "bad_header"},
		{"short", v4[:19], "bad_header"},
		{"version 5", change(v4, func(b []byte) { b[0] = 0x55 }), "bad_header"},
		{"ihl 4", change(v4, func(b []byte) { b[0] = 0x44 }), "bad_header"},
		{"ihl past the packet", change(v4, func(b []byte) { b[0] = 0x4f }), "bad_header"},
		{"total below ihl", reset(v4, func(b []byte) { b[3] = 19 }), "bad_header"},
		{"total past the packet", reset(v4, func(b []byte) { b[3]++ }), "bad_header"},
		{"checksum", change(v4, func(b []byte) { b[10] ^= 1 }), "bad_checksum"},
		{"checksum with options", change(spec{src: "10.1.0.5", dst: "10.2.0.5", opts: []byte{1, 1, 1, 0}}.build(), func(b []byte) { b[22] = 7 }), "bad_checksum"},
		{"fragment past 65535", reset(v4, func(b []byte) { b[6], b[7] = 0x1f, 0xff }), "bad_fragment"},
		{"fragment of odd size", spec{src: "10.1.0.5", dst: "10.2.0.5", frag: flagMF}.udp(make([]byte, 9)).build(), "bad_fragment"},
		{"v6 short", v6[:39], "bad_header"},
		{"v6 payload past the packet", change(v6, func(b []byte) { b[5]++ }), "bad_header"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for o, got := range w.send(FromTUN, netip.Addr{}, tt.b) {
				if len(got) > 0 {
					t.Errorf("%v got a packet", Origin(o))
				}
			}
			if n := w.count(t, "fabric_drop_total", tt.want); n != 1 {
				t.Errorf("counter is %d, want 1", n)
			}
		})
	}
}

// TestPaddingIsCut: Ethernet pads short frames; the padding must not travel.
func TestPaddingIsCut(t *testing.T) {
	for _, p := range []spec{{src: "10.1.1.5", dst: "10.2.0.5"}, {src: "fd00:1:0:1::5", dst: "fd00:2::5"}} {
		w := newWorld(t)
		b := p.udp(nil).build()
		out := w.send(FromVXLAN, vtepA, append(slices.Clone(b), 0, 0, 0, 0, 0))
		if got := out[FromWireGuard]; len(got) != 1 || len(got[0].Data) != len(b) {
			t.Errorf("%s: %v", p.src, got)
		}
	}
}

// FuzzTransport checks the walk over extension headers: no panic, and what it
// returns lies at the end of the packet.
func FuzzTransport(f *testing.F) {
	f.Add(spec{src: "10.1.0.5", dst: "10.2.0.5"}.udp(nil).build())
	f.Add(spec{src: "fd00:1::5", dst: "fd00:2::5", extType: protoHopByHop, ext: []byte{protoFragment, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9}}.udp(nil).build())
	f.Add(spec{src: "fd00:1::5", dst: "fd00:2::5", extType: protoAuth, ext: []byte{6, 255, 1, 4}}.build())
	f.Fuzz(func(t *testing.T, b []byte) {
		var h header
		drop := h.parse(b)
		if drop != none {
			return
		}
		if len(h.b) > len(b) || h.hlen > len(h.b) {
			t.Fatalf("view of %d bytes with a header of %d out of %d", len(h.b), h.hlen, len(b))
		}
		tr, _ := h.transport()
		if len(tr.b) > len(h.b)-h.hlen {
			t.Fatalf("payload of %d bytes in %d", len(tr.b), len(h.b))
		}
		if len(tr.b) > 0 && &tr.b[len(tr.b)-1] != &h.b[len(h.b)-1] {
			t.Fatal("the payload does not end where the packet ends")
		}
	})
}

package fabric

import (
	"slices"
	"testing"

	"corax/dataplane"
)

// FuzzForward sends anything from everywhere: no panic, nothing larger than the
// way carries, every IPv4 header and every ICMP error valid, and a transport
// checksum that was right stays right.
func FuzzForward(f *testing.F) {
	seeds := []spec{
		spec{src: "10.1.0.5", dst: "10.2.0.5"}.udp(make([]byte, 40)),
		spec{src: "10.1.0.5", dst: "10.2.0.5"}.udp(make([]byte, 3000)),
		spec{src: "10.1.0.5", dst: "10.2.0.5", frag: flagDF}.udp(make([]byte, 3000)),
		spec{src: "10.2.0.5", dst: "10.1.1.5", ttl: 1}.echo(8),
		spec{src: "10.1.1.5", dst: "10.2.0.5", opts: []byte{0x94, 4, 0, 0}}.udp(make([]byte, 1600)),
		spec{src: "10.1.0.5", dst: "10.2.0.5"}.tcp(0x02, []byte{1, 2, 4, 5, 0xb4, 1, 1, 0}, nil),
		spec{src: "fd00:1::5", dst: "fd00:2::5"}.tcp(0x12, []byte{2, 4, 5, 0xb4}, nil),
		spec{src: "fd00:2::5", dst: "fd00:1:0:2::5"}.udp(make([]byte, 1400)),
		spec{src: "fd00:1::5", dst: "fd00:2::5", extType: protoHopByHop, ext: []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}}.tcp(0x02, []byte{2, 4, 5, 0xb4}, nil),
		spec{src: overlayA.String(), dst: overlaySelf.String()}.echo(128),
		spec{src: overlaySelf.String(), dst: overlayPeer.String()}.echo(129),
	}
	for _, s := range seeds {
		for o := range uint8(origins) {
			f.Add(o, false, s.build())
		}
	}
	f.Fuzz(func(t *testing.T, o uint8, mend bool, b []byte) {
		if len(b) > 0xffff {
			return
		}
		b = slices.Clone(b)
		if mend && len(b) >= 20 && b[0] == 0x45 { // get past the header checksum
			setChecksum4(b[:20])
		}
		w := newWorld(t)
		bad := new(header).parse(b)
		right := bad == none && checksumsValid(b)
		for o, got := range w.send(Origin(o%uint8(origins)), vtepA, b) {
			for _, p := range got {
				checkEmitted(t, w, Origin(o), p, right)
			}
		}
	})
}

func checkEmitted(t *testing.T, w *world, o Origin, p dataplane.Packet, right bool) {
	var h header
	drop := h.parse(p.Data)
	if drop != none || len(h.b) != len(p.Data) {
		t.Fatalf("emitted a packet that parse refuses: %x", p.Data)
	}
	if e := w.lookup(w.snap.Load(), FromNetstack, h.dst()); e != nil && e.out == o {
		if len(p.Data) > e.limit(h.v6) {
			t.Fatalf("%d bytes to %v, limit %d", len(p.Data), h.dst(), e.limit(h.v6))
		}
	} else if len(p.Data) > 1280 {
		t.Fatalf("an ICMP error of %d bytes", len(p.Data))
	}
	if right && !checksumsValid(p.Data) {
		t.Fatalf("the checksum broke: %x", p.Data)
	}
}

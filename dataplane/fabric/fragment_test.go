package fabric

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"corax/dataplane"
)

// reassemble puts IPv4 fragments together, in any order, and checks that each
// is well formed. It returns the payload, and whether the last piece has MF.
func reassemble(t *testing.T, first int, frags []dataplane.Packet, limit int) (payload []byte, more bool) {
	t.Helper()
	have := map[int][]byte{}
	end := -1
	for _, p := range frags {
		b := p.Data
		if !checksumsValid(b) {
			t.Fatal("fragment with a wrong checksum or length")
		}
		if len(b) > limit {
			t.Fatalf("fragment of %d bytes, limit %d", len(b), limit)
		}
		n := int(b[0]&15) * 4
		frag := binary.BigEndian.Uint16(b[6:])
		at := int(frag&offsetMask)*8 - first
		if frag&flagMF != 0 && (len(b)-n)%8 != 0 {
			t.Fatalf("fragment of %d payload bytes", len(b)-n)
		}
		have[at] = b[n:]
		if at+len(b)-n > end {
			end, more = at+len(b)-n, frag&flagMF != 0
		}
	}
	for len(payload) < end {
		piece, ok := have[len(payload)]
		if !ok || len(piece) == 0 {
			t.Fatalf("nothing at %d", len(payload))
		}
		payload = append(payload, piece...)
	}
	return payload, more
}

func TestFragment(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	data := make([]byte, 0xffff)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	options := []byte{
		0x94, 4, 0, 0, // router alert: copied
		7, 7, 4, 0, 0, 0, 0, // record route: not copied
		1,
		0x88, 4, 1, 2, // stream id: copied
	}
	tests := []struct {
		name    string
		payload int
		frag    uint16
		opts    []byte
		frags   int
	}{
		{"one byte too much", 1341, 0, nil, 2},
		{"two full ones", 2 * 1336, 0, nil, 2},
		{"many", 20_000, 0, nil, 15},
		{"the largest", 65_515, 0, nil, 50},
		{"options", 4000, 0, options, 4},
		{"a first fragment", 1600, flagMF, nil, 2},
		{"a middle fragment", 1600, flagMF | 200, nil, 2},
		{"a last fragment", 1601, 200, nil, 2},
		{"a last fragment at the end", 1600, (65_535 - 20 - 1600) / 8, nil, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			p := spec{src: "10.1.1.5", dst: "10.2.0.5", proto: 17, tos: 0xbb, id: 777, frag: tt.frag, opts: tt.opts, payload: data[:tt.payload]}
			frags := w.send(FromVXLAN, vtepA, p.build())[FromWireGuard]
			if len(frags) != tt.frags {
				t.Errorf("%d fragments, want %d", len(frags), tt.frags)
			}
			got, more := reassemble(t, int(tt.frag&offsetMask)*8, frags, 1360)
			if !bytes.Equal(got, data[:tt.payload]) {
				t.Error("the payload differs")
			}
			if more != (tt.frag&flagMF != 0) {
				t.Errorf("the last piece has MF %v", more)
			}
			for i, f := range frags {
				b := f.Data
				if b[1] != 0xbb || binary.BigEndian.Uint16(b[4:]) != 777 || b[8] != 63 || b[9] != 17 {
					t.Errorf("fragment %d: header %x", i, b[:20])
				}
				want := tt.opts
				if i > 0 && want != nil {
					want = []byte{0x94, 4, 0, 0, 0x88, 4, 1, 2}
				}
				if n := int(b[0]&15) * 4; !bytes.Equal(b[20:n], want) {
					t.Errorf("fragment %d: options %x, want %x", i, b[20:n], want)
				}
			}
			if n := w.count(t, "fabric_fragments_total", ""); int(n) != len(frags) {
				t.Errorf("counter is %d, want %d", n, len(frags))
			}
		})
	}
}

// TestFragmentBadOptions: options that lie about their length end the list.
func TestFragmentBadOptions(t *testing.T) {
	for _, opts := range [][]byte{{0x94, 0, 0, 0}, {0x94, 9, 0, 0}, {1, 1, 1, 0x94}, {0, 0x94, 4, 0}} {
		w := newWorld(t)
		p := spec{src: "10.1.0.5", dst: "10.2.0.5", proto: 17, opts: opts, payload: make([]byte, 2000)}
		frags := w.send(FromTUN, netip.Addr{}, p.build())[FromWireGuard]
		got, _ := reassemble(t, 0, frags, 1360)
		if len(got) != 2000 || frags[1].Data[0] != 0x45 {
			t.Errorf("options %x: %d bytes, second header %x", opts, len(got), frags[1].Data[0])
		}
	}
}

// TestFragmentBatch fragments far more than the arena holds in one batch, with
// an output that destroys what it was given: order and bytes must survive.
func TestFragmentBatch(t *testing.T) {
	w := newWorld(t)
	var batch []dataplane.Packet
	for i := range 10 {
		payload := bytes.Repeat([]byte{byte(i + 1)}, 60_000)
		batch = append(batch,
			dataplane.Packet{Data: spec{src: "10.1.0.5", dst: "10.2.0.5", proto: 17, id: uint16(i), payload: payload}.build()},
			dataplane.Packet{Data: spec{src: "10.1.0.5", dst: "10.2.0.5", proto: 17, id: uint16(i), frag: flagDF}.build()})
	}
	w.From(FromTUN).Send(batch)
	r := w.out[FromWireGuard]
	if r.batches < 10*60_000/arenaSize {
		t.Errorf("%d batches: the arena was larger than its bound", r.batches)
	}
	at := 0
	for i := range 10 {
		n := at
		for binary.BigEndian.Uint16(r.got[n].Data[6:])&flagDF == 0 {
			n++
		}
		got, _ := reassemble(t, 0, r.got[at:n], 1360)
		if !bytes.Equal(got, bytes.Repeat([]byte{byte(i + 1)}, 60_000)) {
			t.Errorf("packet %d differs", i)
		}
		if id := binary.BigEndian.Uint16(r.got[n].Data[4:]); int(id) != i {
			t.Errorf("packet %d follows packet %d", id, i)
		}
		at = n + 1
	}
}

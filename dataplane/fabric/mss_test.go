package fabric

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

func TestMSSClamp(t *testing.T) {
	mss := func(v uint16) []byte { return binary.BigEndian.AppendUint16([]byte{2, 4}, v) }
	const syn, synack, ack = 0x02, 0x12, 0x10
	timestamps := []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
	tests := []struct {
		name  string
		from  Origin
		vtep  netip.Addr
		p     spec
		flags byte
		opts  []byte
		want  []byte // options afterwards; nil means unchanged
	}{
		{"syn v4", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, mss(1460), mss(1320)},
		{"syn/ack v4", FromWireGuard, netip.Addr{}, spec{src: "10.2.0.5", dst: "10.1.0.5"}, synack, mss(1460), mss(1320)},
		{"smaller for TCP", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.4.0.5"}, syn, mss(1460), mss(1160)},
		{"smaller for TCP, back", FromWireGuard, netip.Addr{}, spec{src: "10.4.0.5", dst: "10.1.0.5"}, synack, mss(1460), mss(1160)},
		{"smaller way back", FromVXLAN, vtepB, spec{src: "10.1.2.5", dst: "10.2.0.5"}, syn, mss(1460), mss(1190)},
		{"smaller way there", FromWireGuard, netip.Addr{}, spec{src: "10.2.0.5", dst: "10.1.2.5"}, syn, mss(1460), mss(1190)},
		{"syn v6", FromTUN, netip.Addr{}, spec{src: "fd00:1::5", dst: "fd00:2::5"}, syn, mss(1440), mss(1300)},
		{"v6 below 1280", FromWireGuard, netip.Addr{}, spec{src: "fd00:2::5", dst: "fd00:1:0:2::5"}, synack, mss(1440), mss(1170)},
		{"node to the agent", FromVXLAN, vtepB, spec{src: overlayB.String(), dst: overlaySelf.String()}, syn, mss(1440), mss(1170)},
		{"from the agent", FromNetstack, netip.Addr{}, spec{src: overlaySelf.String(), dst: overlayPeer.String()}, syn, mss(1348), mss(1300)},
		{"with options", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, slices.Concat(timestamps, mss(1460), []byte{3, 3, 7}), slices.Concat(timestamps, mss(1320), []byte{3, 3, 7})},
		{"odd place", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, slices.Concat([]byte{1}, mss(1460)), slices.Concat([]byte{1}, mss(1320))},
		{"odd place v6", FromTUN, netip.Addr{}, spec{src: "fd00:1::5", dst: "fd00:2::5"}, syn, slices.Concat([]byte{3, 3, 7}, mss(0xffff)), slices.Concat([]byte{3, 3, 7}, mss(1300))},
		{"twice", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, slices.Concat(mss(1400), mss(1460)), slices.Concat(mss(1320), mss(1320))},
		{"ip options", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5", opts: []byte{1, 1, 1, 0}}, syn, mss(1460), mss(1320)},
		{"never raised", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, mss(536), nil},
		{"exact", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, mss(1320), nil},
		{"not a syn", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, ack, mss(1460), nil},
		{"no option", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, []byte{1, 1, 4, 2}, nil},
		{"after the end", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, slices.Concat([]byte{0}, mss(1460)), nil},
		{"option of length 0", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, slices.Concat([]byte{9, 0}, mss(1460)), nil},
		{"option past the end", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, []byte{1, 1, 2, 4}, nil},
		{"mss of wrong length", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, syn, []byte{2, 3, 255, 1}, nil},
		{"first fragment", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5", frag: flagMF}, syn, mss(1460), mss(1320)},
		{"later fragment", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5", frag: 8}, syn, mss(1460), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			in := tt.p.tcp(tt.flags, slices.Clone(tt.opts), make([]byte, 8)).build()
			out := w.send(tt.from, tt.vtep, slices.Clone(in))
			var got []byte
			for _, l := range out {
				for _, p := range l {
					got = p.Data
				}
			}
			if len(got) != len(in) {
				t.Fatalf("%d bytes came out of %d", len(got), len(in))
			}
			want := tt.want
			if want == nil {
				want = tt.opts
			}
			at := 40
			if in[0]>>4 == 4 {
				at = int(in[0]&15) * 4
			}
			if o := got[at+20 : at+20+len(want)]; !bytes.Equal(o, want) {
				t.Errorf("options %x, want %x", o, want)
			}
			if !tcpValid(got, at) {
				t.Error("TCP checksum is wrong")
			}
			wantCount := uint64(0)
			if tt.want != nil {
				wantCount = 1
			}
			if n := w.count(t, "fabric_mss_clamped_total", ""); n != wantCount {
				t.Errorf("counter is %d, want %d", n, wantCount)
			}
		})
	}
}

// TestMSSBehindExtensions: SYNs behind IPv6 extension headers are found, and
// nothing else is touched.
func TestMSSBehindExtensions(t *testing.T) {
	tests := []struct {
		name  string
		typ   uint8
		ext   []byte
		clamp bool
	}{
		{"destination options", protoDestOpts, []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, true},
		{"two headers", protoHopByHop, []byte{protoRouting, 0, 1, 4, 0, 0, 0, 0, protoTCP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, true},
		{"first fragment", protoFragment, []byte{protoTCP, 0, 0, 1, 0, 0, 0, 1}, true},
		{"later fragment", protoFragment, []byte{protoTCP, 0, 0, 8, 0, 0, 0, 1}, false},
		{"authentication", protoAuth, []byte{protoTCP, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1}, true},
		{"unknown header", 253, []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, false},
		{"past the end", protoDestOpts, []byte{protoTCP, 200, 1, 4, 0, 0, 0, 0}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			p := spec{src: "fd00:1::5", dst: "fd00:2::5"}.tcp(0x02, []byte{2, 4, 5, 0xa0}, nil)
			p.ext, p.extType = tt.ext, tt.typ
			in := p.build()
			out := w.send(FromTUN, netip.Addr{}, slices.Clone(in))[FromWireGuard]
			if len(out) != 1 {
				t.Fatalf("%d packets came out", len(out))
			}
			got := out[0].Data
			at := 40 + len(tt.ext)
			if clamped := binary.BigEndian.Uint16(got[at+22:]) == 1300; clamped != tt.clamp {
				t.Errorf("clamped %v, want %v", clamped, tt.clamp)
			}
			if !tcpValid(got, at) {
				t.Error("TCP checksum is wrong")
			}
			if !bytes.Equal(got[:at], in[:at]) {
				t.Error("headers changed")
			}
		})
	}
}

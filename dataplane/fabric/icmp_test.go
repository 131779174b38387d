package fabric

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"corax/dataplane"
)

// checkAnswered checks that what came out is the one ICMP error wanted, about
// the packet in, back at its origin.
func checkAnswered(t *testing.T, out [origins][]dataplane.Packet, from Origin, vtep netip.Addr, in []byte, want outcome) {
	t.Helper()
	for o, got := range out {
		n := 0
		if Origin(o) == from && want.typ >= 0 {
			n = 1
		}
		if len(got) != n {
			t.Fatalf("%d packets went to %v, want %d", len(got), Origin(o), n)
		}
	}
	if want.typ < 0 {
		return
	}
	got := out[from][0]
	if got.VTEP != vtep {
		t.Errorf("went to VTEP %v, want %v", got.VTEP, vtep)
	}
	b := got.Data
	if !checksumsValid(b) {
		t.Error("checksum is wrong")
	}
	var m []byte
	if in[0]>>4 == 4 {
		if b[9] != 1 || !bytes.Equal(b[12:16], in[16:20]) || !bytes.Equal(b[16:20], in[12:16]) {
			t.Errorf("not ICMP from the destination to the source: %x", b[:20])
		}
		if n := min(28+len(in), 576); len(b) != n {
			t.Errorf("%d bytes, want %d", len(b), n)
		}
		m = b[20:]
	} else {
		if b[6] != 58 || !bytes.Equal(b[8:24], in[24:40]) || !bytes.Equal(b[24:40], in[8:24]) {
			t.Errorf("not ICMPv6 from the destination to the source: %x", b[:40])
		}
		if n := min(48+len(in), 1280); len(b) != n {
			t.Errorf("%d bytes, want %d", len(b), n)
		}
		m = b[40:]
	}
	if int(m[0]) != want.typ || int(m[1]) != want.code {
		t.Errorf("type %d code %d, want %d and %d", m[0], m[1], want.typ, want.code)
	}
	if mtu := binary.BigEndian.Uint32(m[4:]); int(mtu) != want.mtu {
		t.Errorf("MTU field %d, want %d", mtu, want.mtu)
	}
	if !bytes.Equal(m[8:], in[:len(m)-8]) {
		t.Error("the quote is not the packet as it came")
	}
}

// TestNoAnswer: packets about which no error may be sent.
func TestNoAnswer(t *testing.T) {
	hopByHop := []byte{protoICMP6, 0, 1, 4, 0, 0, 0, 0}
	v6 := spec{src: "fd00:1:0:1::5", dst: "fd00:9::1"}
	v4 := spec{src: "10.1.1.5", dst: "10.9.0.1"}
	with := func(p spec, change func(*spec)) spec { change(&p); return p }
	tests := []struct {
		name   string
		p      spec
		answer bool
	}{
		{"echo request", v4.echo(8), true},
		{"echo reply", v4.echo(0), true},
		{"unreachable", v4.echo(3), false},
		{"source quench", v4.echo(4), false},
		{"redirect", v4.echo(5), false},
		{"time exceeded", v4.echo(11), false},
		{"parameter problem", v4.echo(12), false},
		{"unknown type", v4.echo(99), false},
		{"empty icmp", with(v4, func(p *spec) { p.proto = protoICMP }), false},
		{"first fragment", with(v4.udp(make([]byte, 8)), func(p *spec) { p.frag = flagMF }), true},
		{"later fragment", with(v4.udp(make([]byte, 8)), func(p *spec) { p.frag = 1 }), false},
		{"v6 echo request", v6.echo(128), true},
		{"v6 unreachable", v6.echo(1), false},
		{"v6 too big", v6.echo(2), false},
		{"v6 redirect", v6.echo(137), false},
		{"v6 empty icmp", with(v6, func(p *spec) { p.proto = protoICMP6 }), false},
		{"v6 error behind an option", with(v6.echo(1), func(p *spec) { p.ext = hopByHop }), false},
		{"v6 echo behind an option", with(v6.echo(128), func(p *spec) { p.ext = hopByHop }), true},
		{"v6 chain past the end", with(v6, func(p *spec) { p.ext, p.payload = []byte{protoICMP6, 9, 0, 0, 0, 0, 0, 0}, nil }), false},
		{"v6 later fragment", with(v6.udp(nil), func(p *spec) { p.ext, p.extType = []byte{17, 0, 0, 8, 0, 0, 0, 1}, protoFragment }), false},
		{"v6 first fragment", with(v6.udp(nil), func(p *spec) { p.ext, p.extType = []byte{17, 0, 0, 1, 0, 0, 0, 1}, protoFragment }), true},
		{"v6 endless chain", with(v6, func(p *spec) {
			p.extType, p.ext = protoDestOpts, bytes.Repeat([]byte{protoDestOpts, 0, 1, 4, 0, 0, 0, 0}, 12)
		}), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			in := tt.p.build()
			out := w.send(FromVXLAN, vtepA, slices.Clone(in))
			if n := w.count(t, "fabric_drop_total", "no_route"); n != 1 {
				t.Fatalf("no_route is %d, want 1", n)
			}
			want := outcome{typ: -1}
			if tt.answer {
				want = outcome{typ: 3}
				if in[0]>>4 == 6 {
					want = outcome{typ: 1}
				}
			}
			checkAnswered(t, out, FromVXLAN, vtepA, in, want)
			suppressed := w.count(t, "fabric_icmp_suppressed_total", "not_answerable")
			if tt.answer != (suppressed == 0) {
				t.Errorf("suppressed %d", suppressed)
			}
		})
	}
}

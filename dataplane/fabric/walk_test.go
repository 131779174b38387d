package fabric

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"corax/dataplane"
)

// line is the whole way: a plain node and a gateway node in each of two
// domains, the tunnels between them replaced by direct calls.
//
//	pod 10.1.1.5 ─ nodes[0] ─VXLAN─ nodes[1] ─WireGuard─ nodes[2] ─VXLAN─ nodes[3] ─ pod 10.2.1.5
type line struct {
	nodes [4]*Fabric
	pods  [4]recorder // what reaches each node's TUN
}

func newLine(t *testing.T) *line {
	t.Helper()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 1, byte(i)}) }
	left, right := netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")
	own := []netip.Prefix{
		netip.MustParsePrefix("10.1.1.0/24"), netip.MustParsePrefix("10.1.2.0/24"),
		netip.MustParsePrefix("10.2.2.0/24"), netip.MustParsePrefix("10.2.1.0/24"),
	}
	const lan, path = 1350, 1280
	vxlan := func(p netip.Prefix, node int) dataplane.Route {
		return dataplane.Route{Prefix: p, Via: dataplane.ViaVXLAN, VTEP: addr(node), MTU: lan}
	}
	wire := func(p netip.Prefix) dataplane.Route {
		return dataplane.Route{Prefix: p, Via: dataplane.ViaWireGuard, MTU: path}
	}
	routes := [][]dataplane.Route{
		{vxlan(right, 1)},
		{vxlan(own[0], 0), wire(right)},
		{vxlan(own[3], 3), wire(left)},
		{vxlan(left, 2)},
	}
	l := new(line)
	for i := range l.nodes {
		l.nodes[i] = New(Config{})
	}
	for i, f := range l.nodes {
		over := func(b []dataplane.Packet) {
			for _, p := range b {
				to := l.nodes[p.VTEP.As4()[3]]
				to.From(FromVXLAN).Send([]dataplane.Packet{{Data: slices.Clone(p.Data), VTEP: addr(i)}})
			}
		}
		out := Outputs{TUN: &l.pods[i], VXLAN: dataplane.SenderFunc(over)}
		if i == 1 || i == 2 {
			out.WireGuard = l.nodes[3-i].From(FromWireGuard)
		}
		cfg := dataplane.Config{
			Self:   dataplane.Self{NodeIP: addr(i), Overlay: overlayOf(byte(i + 1)), MTU: 1408, Subnets: own[i : i+1]},
			Routes: append(routes[i], dataplane.Route{Prefix: own[i], Via: dataplane.ViaTUN}),
		}
		if err := f.Apply(cfg, out); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// send gives a packet to the TUN of a node and returns what reaches the TUNs.
func (l *line) send(node int, b []byte) (got [4][][]byte) {
	l.nodes[node].From(FromTUN).Send([]dataplane.Packet{{Data: b}})
	for i := range l.pods {
		for _, p := range l.pods[i].got {
			got[i] = append(got[i], p.Data)
		}
		l.pods[i].got = nil
	}
	return got
}

// TestWalk: a packet arrives with two hops off, and its answer too.
func TestWalk(t *testing.T) {
	l := newLine(t)
	got := l.send(0, spec{src: "10.1.1.5", dst: "10.2.1.5"}.echo(8).build())
	if len(got[3]) != 1 || got[3][0][8] != 62 || !checksumsValid(got[3][0]) {
		t.Fatalf("at the far pod: %x", got[3])
	}
	got = l.send(3, spec{src: "10.2.1.5", dst: "10.1.1.5"}.echo(0).build())
	if len(got[0]) != 1 || got[0][0][8] != 62 {
		t.Fatalf("back at the pod: %x", got[0])
	}
}

// TestWalkSYN: both ends learn the MSS of the narrowest way.
func TestWalkSYN(t *testing.T) {
	l := newLine(t)
	syn := l.send(0, spec{src: "10.1.1.5", dst: "10.2.1.5"}.tcp(0x02, []byte{2, 4, 5, 0xb4}, nil).build())[3]
	ack := l.send(3, spec{src: "10.2.1.5", dst: "10.1.1.5"}.tcp(0x12, []byte{2, 4, 5, 0xb4}, nil).build())[0]
	for _, got := range [][][]byte{syn, ack} {
		if len(got) != 1 || binary.BigEndian.Uint16(got[0][42:]) != 1240 || !checksumsValid(got[0]) {
			t.Errorf("arrived as %x", got)
		}
	}
}

// TestWalkErrors: each node's error passes the source checks of every other on
// its way back, because it carries the destination's address.
func TestWalkErrors(t *testing.T) {
	tests := []struct {
		name      string
		ttl       uint8
		size      int
		dst       string
		typ, code byte
		mtu       uint16
	}{
		{"too big for the LAN", 64, 1351, "10.2.1.5", 3, 4, 1350},
		{"too big for the path", 64, 1281, "10.2.1.5", 3, 4, 1280},
		{"first gateway node", 1, 100, "10.2.1.5", 11, 0, 0},
		{"second gateway node", 2, 100, "10.2.1.5", 11, 0, 0},
		{"nobody there", 64, 100, "10.2.9.5", 3, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := spec{src: "10.1.1.5", dst: tt.dst, ttl: tt.ttl, frag: flagDF}.udp(make([]byte, tt.size-28)).build()
			got := newLine(t).send(0, slices.Clone(in))
			if len(got[3]) != 0 || len(got[0]) != 1 {
				t.Fatalf("%d packets arrived, %d came back", len(got[3]), len(got[0]))
			}
			b := got[0][0]
			if !checksumsValid(b) || !bytes.Equal(b[12:16], in[16:20]) || !bytes.Equal(b[16:20], in[12:16]) {
				t.Errorf("error %x", b[:28])
			}
			if b[20] != tt.typ || b[21] != tt.code || binary.BigEndian.Uint16(b[26:]) != tt.mtu {
				t.Errorf("type %d code %d MTU %d", b[20], b[21], binary.BigEndian.Uint16(b[26:]))
			}
		})
	}
}

// TestWalkFragments: without DF a large packet arrives whole, in pieces.
func TestWalkFragments(t *testing.T) {
	payload := bytes.Repeat([]byte("corax"), 800)
	got := newLine(t).send(0, spec{src: "10.1.1.5", dst: "10.2.1.5", id: 9}.udp(payload).build())
	var frags []dataplane.Packet
	for _, b := range got[3] {
		frags = append(frags, dataplane.Packet{Data: b})
	}
	whole, more := reassemble(t, 0, frags, 1280)
	if more || !bytes.Equal(whole[8:], payload) {
		t.Error("the payload differs")
	}
}

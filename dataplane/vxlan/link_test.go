package vxlan

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	gheader "gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"corax/dataplane"
)

// TestARP: two stacks on the segment find each other by ARP and talk; a removed
// NIC leaves the Endpoint as it was.
func TestARP(t *testing.T) {
	a, b := pair(t, nil)
	run(t, a)
	run(t, b)
	to := fullAddr(netip.AddrPortFrom(SegmentAddr(node), 7))
	for range 2 {
		sa := newTestStack(t, a.Link(), segmentPrefix, SegmentPrefix(self))
		sb := newTestStack(t, b.Link(), segmentPrefix, SegmentPrefix(node))
		srv, err := gonet.DialUDP(sb, &to, nil, gheader.IPv4ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		c, err := gonet.DialUDP(sa, nil, &to, gheader.IPv4ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, c, srv)
		c.Close()
		srv.Close()
		sa.RemoveNIC(testNIC)
		sb.RemoveNIC(testNIC)
		if a.Link().IsAttached() {
			t.Error("still attached after the NIC was removed")
		}
	}
}

// TestND: a stack resolves the other's link-local address.
func TestND(t *testing.T) {
	a, b := pair(t, nil)
	run(t, a)
	run(t, b)
	from, to := netip.MustParsePrefix("fe80::2/64"), netip.MustParsePrefix("fe80::3/64")
	sa := newTestStack(t, a.Link(), from, from)
	newTestStack(t, b.Link(), to, to)
	done := make(chan stack.LinkResolutionResult, 1)
	err := sa.GetLinkAddress(testNIC, tcpip.AddrFromSlice(to.Addr().AsSlice()), tcpip.AddrFromSlice(from.Addr().AsSlice()),
		gheader.IPv6ProtocolNumber, func(r stack.LinkResolutionResult) { done <- r })
	if _, wait := err.(*tcpip.ErrWouldBlock); err != nil && !wait {
		t.Fatalf("resolve: %s", err)
	}
	select {
	case r := <-done:
		if r.Err != nil || r.LinkAddress != b.Link().LinkAddress() {
			t.Errorf("resolved to %s, %v, want %s", r.LinkAddress, r.Err, b.Link().LinkAddress())
		}
	case <-time.After(5 * time.Second):
		t.Errorf("no answer; %v", b.Counters())
	}
}

func echo(t *testing.T, c net.Conn, srv net.PacketConn) {
	t.Helper()
	want := bytes.Repeat([]byte("segment"), 150)
	if _, err := c.Write(want); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	_ = srv.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, from, err := srv.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := srv.WriteTo(buf[:n], from); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err = c.Read(buf); err != nil || !bytes.Equal(buf[:n], want) {
		t.Fatalf("echo: %d bytes, %v", n, err)
	}
}

// TestStations: the static FDB wins over the learned one, a MAC follows its
// station, and what nobody knows goes to all.
func TestStations(t *testing.T) {
	e := newEndpoint(t, self, freePort(t), nil)
	e.SetVTEPs(testVTEPs())
	now := time.Unix(1000, 0)
	mac := MAC{2, 0, 0, 0, 0, 9}
	check := func(name string, dst MAC, want ...netip.Addr) {
		t.Helper()
		var got []netip.Addr
		for _, v := range e.stations(dst, now) {
			got = append(got, v.addr)
		}
		if len(got) != len(want) || len(got) > 0 && (got[0] != want[0] || got[len(got)-1] != want[len(want)-1]) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	// seen makes the receive side see a frame.
	var pkts []dataplane.Packet
	seen := func(from netip.Addr, src MAC, pod string) {
		t.Helper()
		b := datagram(NodeMAC(self), src, typeIPv4, ip4(pod, "10.0.0.1", protoUDP, nil))
		if d := takeOne(t, e, &pkts, from, b); d != dropNone {
			t.Fatalf("frame refused: %s", d)
		}
	}
	check("static", NodeMAC(node), node)
	check("broadcast", broadcast, node, gateway)
	check("multicast", MAC{0x33, 0x33, 0, 0, 0, 1}, node, gateway)
	check("unknown", mac, node, gateway)
	seen(node, mac, "10.244.3.9")
	check("learned", mac, node)
	seen(gateway, mac, "10.99.1.1")
	check("moved", mac, gateway)
	seen(node, NodeMAC(gateway), "10.244.3.9")
	check("static is not overridden", NodeMAC(gateway), gateway)
	if n := e.learned.len(); n != 1 {
		t.Errorf("%d learned, want 1", n)
	}
	e.SetVTEPs(testVTEPs()[:1])
	check("learned from a VTEP that is gone", mac, node)
	if n := e.learned.len(); n != 0 {
		t.Errorf("%d learned after their VTEP went, want 0", n)
	}
}

// TestLeaves: the stack sends nothing but the segment's by this face.
func TestLeaves(t *testing.T) {
	e := newEndpoint(t, self, freePort(t), nil)
	e.SetVTEPs(testVTEPs())
	dst := NodeMAC(node)
	for _, tt := range []struct {
		name string
		dst  MAC
		typ  uint16
		b    []byte
		want int // copies
	}{
		{"arp request", broadcast, typeARP, arpRequest(e.mac, e.segment, SegmentAddr(node)), 2},
		{"arp answer", dst, typeARP, arpRequest(e.mac, e.segment, SegmentAddr(node)), 1},
		{"segment", dst, typeIPv4, ip4("240.0.0.2", "240.0.0.3", 1, nil), 1},
		{"nd", MAC{0x33, 0x33}, typeIPv6, ip6("fe80::2", "ff02::1:ff00:3", protoICMP6, nil), 2},
		{"pod", dst, typeIPv4, ip4("240.0.0.2", "10.244.3.9", 1, nil), 0},
		{"overlay", dst, typeIPv6, ip6(ownOverlay, otherOverlay, protoUDP, nil), 0},
		{"multicast", MAC{1, 0, 0x5e}, typeIPv4, ip4("240.0.0.2", "224.0.0.1", 2, nil), 0},
		{"other ethertype", dst, 0x88cc, nil, 0},
	} {
		frame := datagram(tt.dst, e.mac, tt.typ, tt.b)[vxlanLen:]
		before := e.dropped(dropOffSegment)
		msgs := e.frameMessages(nil, frame, time.Unix(1000, 0))
		if len(msgs) != tt.want {
			t.Errorf("%s: %d messages, want %d", tt.name, len(msgs), tt.want)
		}
		for _, m := range msgs {
			if !bytes.Equal(m.Payload, datagram(tt.dst, e.mac, tt.typ, tt.b)) {
				t.Errorf("%s: sent %x", tt.name, m.Payload)
			}
		}
		if got := e.dropped(dropOffSegment) - before; got != 0 != (tt.want == 0) {
			t.Errorf("%s: off_segment rose by %d", tt.name, got)
		}
	}
}

// TestSegmentRate: a flood for the segment is cut before the stack.
func TestSegmentRate(t *testing.T) {
	e := newEndpoint(t, self, freePort(t), nil)
	e.SetVTEPs(testVTEPs())
	newTestStack(t, e.Link(), segmentPrefix, SegmentPrefix(self))
	b := datagram(broadcast, NodeMAC(node), typeARP, arpRequest(NodeMAC(node), SegmentAddr(node), SegmentAddr(self)))
	var got []dataplane.Packet
	for range segmentBurst {
		if d := takeOne(t, e, &got, node, b); d != dropNone {
			t.Fatalf("within the burst: %s", d)
		}
	}
	if d := takeOne(t, e, &got, node, b); d != dropSegmentRate {
		t.Errorf("past the burst: %s, want %s", d, dropSegmentRate)
	}
}

package vxlan

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"corax/dataplane"
	"corax/dataplane/internal/udpbatch"
)

var (
	self     = netip.MustParseAddr("127.0.0.2")
	node     = netip.MustParseAddr("127.0.0.3") // a plain node
	gateway  = netip.MustParseAddr("127.0.0.4")
	stranger = netip.MustParseAddr("127.0.0.5")
)

const (
	ownOverlay   = "fd63:6f72:6178::2"
	otherOverlay = "fd63:6f72:6178::7"
)

func testVTEPs() []dataplane.VTEP {
	return []dataplane.VTEP{
		{Node: "node", Addr: node, Sources: []netip.Prefix{
			netip.MustParsePrefix("10.244.3.0/24"), netip.MustParsePrefix("fd00:3::/64"),
		}},
		{Node: "gateway", Addr: gateway, Sources: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}},
	}
}

// freePort returns a UDP port that was free a moment ago on every test address.
func freePort(t testing.TB) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(self, 0)))
	if err != nil {
		t.Skipf("no loopback: %v", err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func newEndpoint(t testing.TB, addr netip.Addr, port uint16, recv dataplane.SenderFunc) *Endpoint {
	t.Helper()
	if recv == nil {
		recv = func([]dataplane.Packet) {}
	}
	e, err := New(Config{Addr: addr, Port: port, VNI: DefaultVNI, Overlay: netip.MustParseAddr(ownOverlay), Receive: recv})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func (e *Endpoint) dropped(d drop) uint64 { return e.count.drops[d].Load() }

// takeOne gives one datagram to the receive side and returns what the fabric
// got and which drop was counted.
func takeOne(t testing.TB, e *Endpoint, got *[]dataplane.Packet, from netip.Addr, b []byte) drop {
	t.Helper()
	var before [drops]uint64
	for d := range before {
		before[d] = e.dropped(drop(d))
	}
	*got = nil
	newReceiver(e).take([]udpbatch.Datagram{{Data: b, From: netip.AddrPortFrom(from, 54321)}}, time.Unix(1000, 0))
	found := dropNone
	for d := range before {
		switch e.dropped(drop(d)) - before[d] {
		case 0:
		case 1:
			if found != dropNone {
				t.Errorf("two drops counted: %s and %s", found, drop(d))
			}
			found = drop(d)
		default:
			t.Errorf("%s counted more than once", drop(d))
		}
	}
	return found
}

// TestReceiveFilter: who may send what. Each refusal is counted once, under its
// reason, and reaches nobody.
func TestReceiveFilter(t *testing.T) {
	var got []dataplane.Packet
	e := newEndpoint(t, self, freePort(t), func(batch []dataplane.Packet) {
		for _, p := range batch {
			got = append(got, dataplane.Packet{Data: bytes.Clone(p.Data), VTEP: p.VTEP})
		}
	})
	e.SetVTEPs(testVTEPs())
	me, peer := NodeMAC(self), NodeMAC(node)
	seg := func(a netip.Addr) string { return SegmentAddr(a).String() }
	pod4 := ip4("10.244.3.9", "10.99.1.1", protoUDP, nil)
	over := ip6(otherOverlay, ownOverlay, protoUDP, nil)

	for _, tt := range []struct {
		name string
		from netip.Addr
		b    []byte
		want drop
		data []byte // what the fabric gets
	}{
		{"v4 pod", node, datagram(me, peer, typeIPv4, pod4), dropNone, pod4},
		{"v4 pod, padded", node, datagram(me, peer, typeIPv4, append(bytes.Clone(pod4), make([]byte, 30)...)), dropNone, pod4},
		{"v6 pod", node, datagram(me, peer, typeIPv6, ip6("fd00:3::9", "fd00:9::1", protoUDP, nil)), dropNone, ip6("fd00:3::9", "fd00:9::1", protoUDP, nil)},
		{"remote pod by the gateway", gateway, datagram(me, peer, typeIPv4, ip4("10.99.1.1", "10.244.3.9", protoUDP, nil)), dropNone, ip4("10.99.1.1", "10.244.3.9", protoUDP, nil)},
		{"overlay to us", gateway, datagram(me, peer, typeIPv6, over), dropNone, over},

		{"stranger", stranger, datagram(me, peer, typeIPv4, pod4), dropUnknownVTEP, nil},
		{"stranger in IPv6", netip.MustParseAddr("::1"), datagram(me, peer, typeIPv4, pod4), dropUnknownVTEP, nil},
		{"another node's pod", gateway, datagram(me, peer, typeIPv4, pod4), dropSource, nil},
		{"remote pod by a plain node", node, datagram(me, peer, typeIPv4, ip4("10.99.1.1", "10.0.0.1", protoUDP, nil)), dropSource, nil},
		{"one past the subnet", node, datagram(me, peer, typeIPv4, ip4("10.244.4.0", "10.0.0.1", protoUDP, nil)), dropSource, nil},
		{"overlay to somebody else", node, datagram(me, peer, typeIPv6, ip6(otherOverlay, otherOverlay, protoUDP, nil)), dropSource, nil},
		{"overlay to a pod", node, datagram(me, peer, typeIPv6, ip6(otherOverlay, "fd00:3::9", protoUDP, nil)), dropSource, nil},
		{"v6 from nowhere to our overlay", node, datagram(me, peer, typeIPv6, ip6("fd00:4::1", ownOverlay, protoUDP, nil)), dropSource, nil},
		{"other MAC", node, datagram(MAC{2, 1}, peer, typeIPv4, pod4), dropMAC, nil},
		{"broadcast pod packet", node, datagram(broadcast, peer, typeIPv4, pod4), dropMAC, nil},
		{"VLAN tag", node, datagram(me, peer, 0x8100, pod4), dropEtherType, nil},
		{"garbage IP", node, datagram(me, peer, typeIPv4, []byte("garbage")), dropMalformed, nil},
		{"short", node, []byte{8}, dropShort, nil},

		// Nothing is attached to the link face here: good frames end as no_stack.
		{"ping of the segment", node, datagram(me, peer, typeIPv4, ip4(seg(node), seg(self), 1, nil)), dropNoStack, nil},
		{"ping with another's segment address", node, datagram(me, peer, typeIPv4, ip4(seg(gateway), seg(self), 1, nil)), dropSource, nil},
		{"pod to the segment", node, datagram(me, peer, typeIPv4, ip4("10.244.3.9", seg(self), 1, nil)), dropSource, nil},
		{"arp", node, datagram(broadcast, peer, typeARP, arpRequest(peer, SegmentAddr(node), SegmentAddr(self))), dropNoStack, nil},
		{"arp with a pod's address", node, datagram(broadcast, peer, typeARP, arpRequest(peer, netip.MustParseAddr("10.244.3.1"), SegmentAddr(self))), dropNoStack, nil},
		{"arp for another node", node, datagram(broadcast, peer, typeARP, arpRequest(peer, SegmentAddr(gateway), SegmentAddr(self))), dropSource, nil},
		{"arp with our address", node, datagram(broadcast, peer, typeARP, arpRequest(peer, SegmentAddr(self), SegmentAddr(self))), dropSource, nil},
		{"short arp", node, datagram(broadcast, peer, typeARP, make([]byte, 27)), dropMalformed, nil},
		{"arp of another hardware", node, datagram(broadcast, peer, typeARP, make([]byte, 28)), dropMalformed, nil},
		{"nd", node, datagram(MAC{0x33, 0x33}, peer, typeIPv6, ip6("fe80::1", "ff02::1:ff00:2", protoICMP6, nil)), dropNoStack, nil},
		{"nd from a global address", node, datagram(MAC{0x33, 0x33}, peer, typeIPv6, ip6("fd00:3::9", "ff02::1:ff00:2", protoICMP6, nil)), dropSource, nil},
		{"udp to link-local", node, datagram(me, peer, typeIPv6, ip6("fe80::1", "fe80::2", protoUDP, nil)), dropProtocol, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := takeOne(t, e, &got, tt.from, tt.b); d != tt.want {
				t.Errorf("drop %s, want %s", d, tt.want)
			}
			switch {
			case tt.data == nil && len(got) != 0:
				t.Errorf("the fabric got %x", got[0].Data)
			case tt.data != nil && (len(got) != 1 || !bytes.Equal(got[0].Data, tt.data) || got[0].VTEP != tt.from):
				t.Errorf("the fabric got %+v, want %x from %s", got, tt.data, tt.from)
			}
		})
	}

	// A VTEP that goes is a stranger again; its statistics go with it, those of
	// one that stays go on.
	stays := e.Status()[1]
	if stays.Addr != gateway || stays.RxBytes == 0 || !stays.LastReceive.Equal(time.Unix(1000, 0)) {
		t.Errorf("status %+v", stays)
	}
	e.SetVTEPs(testVTEPs()[1:])
	if st := e.Status(); len(st) != 1 || st[0] != stays {
		t.Errorf("status %+v, want %+v", st, stays)
	}
	if d := takeOne(t, e, &got, node, datagram(me, peer, typeIPv4, pod4)); d != dropUnknownVTEP || len(got) != 0 {
		t.Errorf("removed VTEP: %s, %v", d, got)
	}
}

// FuzzDatagram: whatever a known VTEP sends, what reaches the fabric is a packet
// whole inside the datagram, from a source of that VTEP.
func FuzzDatagram(f *testing.F) {
	me, peer := NodeMAC(self), NodeMAC(node)
	f.Add(datagram(me, peer, typeIPv4, ip4("10.244.3.9", "10.99.1.1", protoUDP, make([]byte, 12))))
	f.Add(datagram(me, peer, typeIPv6, ip6("fd00:3::9", "fd00:9::1", protoTCP, make([]byte, 20))))
	f.Add(datagram(me, peer, typeIPv6, ip6(otherOverlay, ownOverlay, protoUDP, make([]byte, 8))))
	f.Add(datagram(broadcast, peer, typeARP, arpRequest(peer, SegmentAddr(node), SegmentAddr(self))))
	var got []dataplane.Packet
	e := newEndpoint(f, self, freePort(f), func(batch []dataplane.Packet) { got = append(got, batch...) })
	e.SetVTEPs(testVTEPs())
	sources := testVTEPs()[0].Sources
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		d := takeOne(t, e, &got, node, b)
		if d != dropNone && len(got) != 0 || d == dropNone && len(got) != 1 {
			t.Fatalf("drop %s, %d packets", d, len(got))
		}
		if len(got) == 0 {
			return
		}
		pkt := got[0].Data
		if cap(pkt) != len(pkt) || len(pkt) > len(b)-headerLen || &pkt[0] != &b[headerLen] {
			t.Fatalf("packet of %d bytes, capacity %d, does not lie in the datagram of %d", len(pkt), cap(pkt), len(b))
		}
		src, dst := addresses(pkt)
		ok := sources[0].Contains(src) || sources[1].Contains(src) ||
			dst == netip.MustParseAddr(ownOverlay) && netip.MustParsePrefix("fd63:6f72:6178::/48").Contains(src)
		if !ok {
			t.Fatalf("source %s accepted", src)
		}
		changed := 0
		for i := range b {
			if b[i] != before[i] {
				changed++
			}
		}
		if changed > 2 {
			t.Fatalf("%d bytes changed: only a checksum may", changed)
		}
	})
}

func addresses(pkt []byte) (src, dst netip.Addr) {
	if pkt[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(pkt[12:])), netip.AddrFrom4([4]byte(pkt[16:]))
	}
	return netip.AddrFrom16([16]byte(pkt[8:])), netip.AddrFrom16([16]byte(pkt[24:]))
}

package fabric

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"corax/dataplane"
)

// what becomes of one packet
type outcome struct {
	out  Origin // when drop is empty
	vtep netip.Addr
	hops uint8  // taken off
	drop string // reason
	typ  int    // of the ICMP error that goes back; -1 none
	code int
	mtu  int // in the ICMP error
}

func TestForwardRules(t *testing.T) {
	const none = -1
	s := func(a netip.Addr) string { return a.String() }
	tests := []struct {
		name string
		from Origin
		vtep netip.Addr
		p    spec
		want outcome
	}{
		{"pod to remote pod", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5"}, outcome{out: FromWireGuard}},
		{"pod to remote pod v6", FromTUN, netip.Addr{}, spec{src: "fd00:1::5", dst: "fd00:2::5"}, outcome{out: FromWireGuard}},
		{"remote to own pod", FromWireGuard, netip.Addr{}, spec{src: "10.2.0.5", dst: "10.1.0.5"}, outcome{out: FromTUN}},
		{"remote to a node's pod", FromWireGuard, netip.Addr{}, spec{src: "10.2.0.5", dst: "10.1.1.5"}, outcome{out: FromVXLAN, vtep: vtepA, hops: 1}},
		{"remote to a node's pod v6", FromWireGuard, netip.Addr{}, spec{src: "fd00:2::5", dst: "fd00:1:0:2::5"}, outcome{out: FromVXLAN, vtep: vtepB, hops: 1}},
		{"node's pod to remote", FromVXLAN, vtepA, spec{src: "10.1.1.5", dst: "10.2.0.5"}, outcome{out: FromWireGuard, hops: 1}},
		{"node's pod to remote v6", FromVXLAN, vtepA, spec{src: "fd00:1:0:1::5", dst: "fd00:2::5"}, outcome{out: FromWireGuard, hops: 1}},
		{"vxlan to own pod keeps the TTL", FromVXLAN, vtepA, spec{src: "10.1.1.5", dst: "10.1.0.5", ttl: 1}, outcome{out: FromTUN}},
		{"own pod keeps the TTL", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5", ttl: 1}, outcome{out: FromWireGuard}},
		{"peer to us", FromWireGuard, netip.Addr{}, spec{src: s(overlayPeer), dst: s(overlaySelf)}, outcome{out: FromNetstack}},
		{"us to peer", FromNetstack, netip.Addr{}, spec{src: s(overlaySelf), dst: s(overlayPeer)}, outcome{out: FromWireGuard}},
		{"netstack for own subnet", FromNetstack, netip.Addr{}, spec{src: "10.1.0.9", dst: "10.2.0.5"}, outcome{out: FromWireGuard}},
		{"netstack as node", FromNetstack, netip.Addr{}, spec{src: "192.168.1.1", dst: "10.1.1.5"}, outcome{out: FromVXLAN, vtep: vtepA}},
		{"node with a known key to us", FromVXLAN, vtepB, spec{src: s(overlayB), dst: s(overlaySelf)}, outcome{out: FromNetstack}},
		{"node with an unknown key to us", FromVXLAN, vtepA, spec{src: s(overlayA), dst: s(overlaySelf)}, outcome{out: FromNetstack}},
		{"us to a node with a known key", FromNetstack, netip.Addr{}, spec{src: s(overlaySelf), dst: s(overlayB)}, outcome{out: FromVXLAN, vtep: vtepB}},

		{"tun foreign source", FromTUN, netip.Addr{}, spec{src: "172.16.0.1", dst: "10.2.0.5"}, outcome{drop: "tun_source", typ: none}},
		{"tun router solicitation", FromTUN, netip.Addr{}, spec{src: "fe80::1", dst: "ff02::2"}, outcome{drop: "multicast", typ: none}},
		{"tun link-local", FromTUN, netip.Addr{}, spec{src: "fe80::1", dst: "fd00:2::5"}, outcome{drop: "link_local", typ: none}},
		{"tun to tun", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.1.0.6"}, outcome{drop: "hairpin", typ: 3, code: 13}},
		{"netstack foreign source", FromNetstack, netip.Addr{}, spec{src: "10.2.0.5", dst: "10.2.0.6"}, outcome{drop: "netstack_source", typ: none}},
		{"peer as our pod", FromWireGuard, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.1.1.5"}, outcome{drop: "spoofed_source", typ: none}},
		{"peer as ourselves", FromWireGuard, netip.Addr{}, spec{src: s(overlaySelf), dst: "fd00:1::5"}, outcome{drop: "spoofed_source", typ: none}},
		{"node as our pod", FromVXLAN, vtepA, spec{src: "10.1.0.5", dst: "10.2.0.5"}, outcome{drop: "spoofed_source", typ: none}},
		{"node as a peer", FromVXLAN, vtepA, spec{src: s(overlayPeer), dst: s(overlaySelf)}, outcome{drop: "overlay_source", typ: none}},
		{"node as another node", FromVXLAN, vtepA, spec{src: s(overlayB), dst: s(overlaySelf)}, outcome{drop: "overlay_source", typ: none}},
		{"node's overlay to a pod", FromVXLAN, vtepB, spec{src: s(overlayB), dst: "fd00:2::5"}, outcome{drop: "overlay_source", typ: none}},
		{"peer to a node's overlay", FromWireGuard, netip.Addr{}, spec{src: "fd00:2::5", dst: s(overlayB)}, outcome{drop: "no_route", typ: 1, code: 0}},
		{"peer to peer", FromWireGuard, netip.Addr{}, spec{src: "10.2.0.5", dst: "10.2.1.5"}, outcome{drop: "wg_to_wg", typ: 3, code: 13}},
		{"peer to peer v6", FromWireGuard, netip.Addr{}, spec{src: "fd00:2::5", dst: "fd00:2:0:1::5"}, outcome{drop: "wg_to_wg", typ: 1, code: 1}},
		{"node to node", FromVXLAN, vtepA, spec{src: "10.1.1.5", dst: "10.1.2.5"}, outcome{drop: "hairpin", typ: 3, code: 13}},
		{"no route", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.9.0.5"}, outcome{drop: "no_route", typ: 3, code: 0}},
		{"no route v6", FromVXLAN, vtepA, spec{src: "fd00:1:0:1::5", dst: "fd00:9::1"}, outcome{drop: "no_route", typ: 1, code: 0}},
		{"route that drops", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.3.0.5"}, outcome{drop: "no_route", typ: 3, code: 0}},

		{"ttl 1", FromVXLAN, vtepA, spec{src: "10.1.1.5", dst: "10.2.0.5", ttl: 1}, outcome{drop: "ttl", typ: 11}},
		{"hop limit 1", FromWireGuard, netip.Addr{}, spec{src: "fd00:2::5", dst: "fd00:1:0:1::5", ttl: 1}, outcome{drop: "ttl", typ: 3}},

		{"from loopback", FromWireGuard, netip.Addr{}, spec{src: "127.0.0.1", dst: "10.1.0.5"}, outcome{drop: "martian_source", typ: none}},
		{"from multicast", FromWireGuard, netip.Addr{}, spec{src: "224.0.0.1", dst: "10.1.0.5"}, outcome{drop: "martian_source", typ: none}},
		{"from broadcast", FromWireGuard, netip.Addr{}, spec{src: "255.255.255.255", dst: "10.1.0.5"}, outcome{drop: "martian_source", typ: none}},
		{"from this network", FromWireGuard, netip.Addr{}, spec{src: "0.1.2.3", dst: "10.1.0.5"}, outcome{drop: "martian_source", typ: none}},
		{"from unspecified v6", FromWireGuard, netip.Addr{}, spec{src: "::", dst: "fd00:1::5"}, outcome{drop: "martian_source", typ: none}},
		{"from mapped", FromWireGuard, netip.Addr{}, spec{src: "::ffff:10.2.0.5", dst: "fd00:1::5"}, outcome{drop: "martian_source", typ: none}},
		{"to loopback", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "127.0.0.1"}, outcome{drop: "martian_destination", typ: none}},
		{"to loopback v6", FromTUN, netip.Addr{}, spec{src: "fd00:1::5", dst: "::1"}, outcome{drop: "martian_destination", typ: none}},
		{"to mapped", FromTUN, netip.Addr{}, spec{src: "fd00:1::5", dst: "::ffff:10.2.0.5"}, outcome{drop: "martian_destination", typ: none}},
		{"to unspecified", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "0.0.0.0"}, outcome{drop: "martian_destination", typ: none}},
		{"to link-local", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "169.254.169.254"}, outcome{drop: "link_local", typ: none}},
		{"to multicast", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "239.0.0.1"}, outcome{drop: "multicast", typ: none}},
		{"to broadcast", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "255.255.255.255"}, outcome{drop: "multicast", typ: none}},

		{"fits exactly", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5", frag: flagDF, payload: make([]byte, 1360-28)}, outcome{out: FromWireGuard}},
		{"too big, DF", FromTUN, netip.Addr{}, spec{src: "10.1.0.5", dst: "10.2.0.5", frag: flagDF, payload: make([]byte, 1361-28)}, outcome{drop: "too_big", typ: 3, code: 4, mtu: 1360}},
		{"too big, v6", FromVXLAN, vtepA, spec{src: "fd00:1:0:1::5", dst: "fd00:2::5", payload: make([]byte, 1361-48)}, outcome{drop: "too_big", typ: 2, mtu: 1360}},
		{"v6 at 1280 on a smaller way", FromWireGuard, netip.Addr{}, spec{src: "fd00:2::5", dst: "fd00:1:0:2::5", payload: make([]byte, 1280-48)}, outcome{out: FromVXLAN, vtep: vtepB, hops: 1}},
		{"v6 at 1281 on a smaller way", FromWireGuard, netip.Addr{}, spec{src: "fd00:2::5", dst: "fd00:1:0:2::5", payload: make([]byte, 1281-48)}, outcome{drop: "too_big", typ: 2, mtu: 1280}},
		{"node MTU when the route has none", FromVXLAN, vtepA, spec{src: "10.1.1.5", dst: "10.1.0.5", frag: flagDF, payload: make([]byte, 1409-28)}, outcome{drop: "too_big", typ: 3, code: 4, mtu: 1408}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.p.tos = 0xbb // EF with CE: must survive
			in := tt.p.udp(tt.p.payload).build()
			sent := slices.Clone(in)
			out := w.send(tt.from, tt.vtep, sent)
			if tt.want.drop == "" {
				checkForwarded(t, out, in, tt.want)
				return
			}
			if n := w.count(t, "fabric_drop_total", tt.want.drop); n != 1 {
				t.Errorf("drop counter %s is %d, want 1", tt.want.drop, n)
			}
			checkAnswered(t, out, tt.from, tt.vtep, in, tt.want)
		})
	}
}

func checkForwarded(t *testing.T, out [origins][]dataplane.Packet, in []byte, want outcome) {
	t.Helper()
	for o, got := range out {
		if Origin(o) != want.out && len(got) > 0 {
			t.Fatalf("%d packets went to %v", len(got), Origin(o))
		}
	}
	got := out[want.out]
	if len(got) != 1 {
		t.Fatalf("%d packets went to %v, want 1", len(got), want.out)
	}
	if got[0].VTEP != want.vtep {
		t.Errorf("next hop %v, want %v", got[0].VTEP, want.vtep)
	}
	if !checksumsValid(got[0].Data) {
		t.Error("checksum is wrong")
	}
	var h header
	h.parse(in)
	if h.v6 {
		in[7] -= want.hops
	} else {
		in[8] -= want.hops
		copy(in[10:12], got[0].Data[10:12]) // checked above
	}
	if !bytes.Equal(in, got[0].Data) {
		t.Errorf("packet changed:\n%x\n%x", in, got[0].Data)
	}
}

func TestNilOutput(t *testing.T) {
	tests := []struct {
		from Origin
		p    spec
		out  Outputs
		want string
	}{
		{FromTUN, spec{src: "10.1.0.5", dst: "10.2.0.5"}, Outputs{TUN: new(recorder)}, "no_wireguard"},
		{FromWireGuard, spec{src: "10.2.0.5", dst: "10.1.1.5"}, Outputs{WireGuard: new(recorder)}, "no_vxlan"},
		{FromWireGuard, spec{src: "10.2.0.5", dst: "10.1.0.5"}, Outputs{WireGuard: new(recorder)}, "no_tun"},
		{FromWireGuard, spec{src: "fd00:2::5", dst: overlaySelf.String()}, Outputs{WireGuard: new(recorder)}, "no_netstack"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			w := newWorld(t)
			if err := w.Apply(gatewayConfig(), tt.out); err != nil {
				t.Fatal(err)
			}
			in := tt.p.udp(nil).build()
			w.send(tt.from, netip.Addr{}, slices.Clone(in))
			if n := w.count(t, "fabric_drop_total", tt.want); n != 1 {
				t.Errorf("counter is %d, want 1", n)
			}
			var out [origins][]dataplane.Packet
			for o, s := range []dataplane.Sender{tt.out.WireGuard, tt.out.VXLAN, tt.out.TUN, tt.out.Netstack} {
				if r, ok := s.(*recorder); ok {
					out[o] = r.got
				}
			}
			want := outcome{typ: 3, code: 1}
			if tt.p.src[0] == 'f' {
				want = outcome{typ: 1, code: 3}
			}
			checkAnswered(t, out, tt.from, netip.Addr{}, in, want)
		})
	}
}

func TestBeforeFirstApply(t *testing.T) {
	f := New(Config{})
	f.From(FromTUN).Send([]dataplane.Packet{{Data: spec{src: "10.1.0.5", dst: "10.2.0.5"}.udp(nil).build()}, {}})
	f.From(Origin(99)).Send([]dataplane.Packet{{}})
	if _, ok := f.Lookup(netip.MustParseAddr("10.2.0.5")); ok {
		t.Error("an empty table has a route")
	}
}

// TestBatch sends one batch with every way mixed: each output gets one call,
// with its packets in the order they came.
func TestBatch(t *testing.T) {
	w := newWorld(t)
	dsts := []string{"10.2.0.1", "10.1.0.1", "10.2.0.2", "10.1.1.1", "10.2.0.3", "10.1.2.1", "10.1.0.2", "10.2.0.1"}
	var batch []dataplane.Packet
	want := [origins][]string{}
	for i, d := range dsts {
		src := "10.1.1.9"
		o := FromWireGuard
		switch d[:5] {
		case "10.1.":
			o = FromTUN
			if d[5] != '0' {
				continue // node to node: another test
			}
		}
		batch = append(batch, dataplane.Packet{Data: spec{src: src, dst: d, id: uint16(i)}.udp(nil).build(), VTEP: vtepA})
		want[o] = append(want[o], d)
	}
	w.From(FromVXLAN).Send(batch)
	for o, r := range w.out {
		var got []string
		for _, p := range r.got {
			a, _ := netip.AddrFromSlice(p.Data[16:20])
			got = append(got, a.String())
		}
		if !slices.Equal(got, want[o]) {
			t.Errorf("%v got %v, want %v", Origin(o), got, want[o])
		}
		if len(want[o]) > 0 && r.batches != 1 {
			t.Errorf("%v got %d batches, want 1", Origin(o), r.batches)
		}
	}
	if n := w.count(t, "fabric_forward_total", "wireguard"); n != 4 {
		t.Errorf("forward counter is %d, want 4", n)
	}
	if n := w.count(t, "fabric_forward_bytes_total", "wireguard"); n != 4*28 {
		t.Errorf("byte counter is %d, want %d", n, 4*28)
	}
}

// TestCacheKeepsRulesApart: the one-entry cache must not lend one packet's
// verdict to the next that differs only in source, family or VTEP.
func TestCacheKeepsRulesApart(t *testing.T) {
	w := newWorld(t)
	ok := spec{src: overlayB.String(), dst: overlaySelf.String()}
	w.From(FromVXLAN).Send([]dataplane.Packet{
		{Data: ok.udp(nil).build(), VTEP: vtepB},
		{Data: ok.udp(nil).build(), VTEP: vtepA},
		{Data: spec{src: "10.1.1.5", dst: "10.2.0.5"}.udp(nil).build(), VTEP: vtepA},
		{Data: spec{src: "10.1.0.5", dst: "10.2.0.5"}.udp(nil).build(), VTEP: vtepA},
	})
	if n := len(w.out[FromNetstack].got); n != 1 {
		t.Errorf("netstack got %d packets, want 1", n)
	}
	if n := len(w.out[FromWireGuard].got); n != 1 {
		t.Errorf("wireguard got %d packets, want 1", n)
	}
	if a, b := w.count(t, "fabric_drop_total", "overlay_source"), w.count(t, "fabric_drop_total", "spoofed_source"); a != 1 || b != 1 {
		t.Errorf("drops %d and %d, want 1 and 1", a, b)
	}
}

// TestCacheEndsWithBatch: a verdict under the rules of one origin, or of one
// configuration, says nothing about the next batch.
func TestCacheEndsWithBatch(t *testing.T) {
	w := newWorld(t)
	p := spec{src: "10.1.0.9", dst: "10.2.0.5"}.udp(nil)
	for range 8 { // the scratch is most likely the same one
		w.send(FromNetstack, netip.Addr{}, p.build())
		if out := w.send(FromVXLAN, netip.Addr{}, p.build()); len(out[FromWireGuard]) != 0 {
			t.Fatal("a VTEP used the verdict on netstack")
		}
	}
	cfg := gatewayConfig()
	cfg.Routes = slices.DeleteFunc(cfg.Routes, func(r dataplane.Route) bool { return r.Via == dataplane.ViaWireGuard })
	w.send(FromNetstack, netip.Addr{}, p.build())
	w.apply(t, cfg)
	if out := w.send(FromNetstack, netip.Addr{}, p.build()); len(out[FromWireGuard]) != 0 {
		t.Error("a route outlived its table")
	}
}

// TestNodeAsPeer: no node speaks in the name of a peer that is reached over
// WireGuard. Agents believe what comes from there.
func TestNodeAsPeer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*dataplane.Config)
	}{
		{"a peer", func(*dataplane.Config) {}},
		{"a peer whose address the configuration gives to the node too", func(c *dataplane.Config) { c.VTEPs[0].Overlay = overlayPeer }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			cfg := gatewayConfig()
			tt.spoil(&cfg)
			w.apply(t, cfg)
			hello := spec{src: overlayPeer.String(), dst: overlaySelf.String()}
			if out := w.send(FromVXLAN, vtepA, hello.udp(nil).build()); len(out[FromNetstack]) != 0 {
				t.Error("the node was believed")
			}
			if n := w.count(t, "fabric_drop_total", "overlay_source"); n != 1 {
				t.Errorf("overlay_source is %d, want 1", n)
			}
			if out := w.send(FromWireGuard, netip.Addr{}, hello.udp(nil).build()); len(out[FromNetstack]) != 1 {
				t.Error("the peer itself was not heard")
			}
		})
	}
}

// TestNodeAsLaterPeer: who spoke from an address while nobody was known to have
// it neither keeps it nor gets the answers, once a peer has it.
func TestNodeAsLaterPeer(t *testing.T) {
	w := newWorld(t)
	later := overlayOf(77)
	hello := spec{src: later.String(), dst: overlaySelf.String()}
	if out := w.send(FromVXLAN, vtepA, hello.udp(nil).build()); len(out[FromNetstack]) != 1 {
		t.Fatal("an address that nobody is known to have is refused")
	}
	cfg := gatewayConfig()
	cfg.Routes = append(cfg.Routes, dataplane.Route{Prefix: netip.PrefixFrom(later, 128), Via: dataplane.ViaWireGuard, MTU: 1360})
	w.apply(t, cfg)
	if out := w.send(FromVXLAN, vtepA, hello.udp(nil).build()); len(out[FromNetstack]) != 0 {
		t.Error("the node is still believed")
	}
	answer := spec{src: overlaySelf.String(), dst: later.String()}
	if out := w.send(FromNetstack, netip.Addr{}, answer.udp(nil).build()); len(out[FromWireGuard]) != 1 || len(out[FromVXLAN]) != 0 {
		t.Errorf("the answer went to %v", out)
	}
}

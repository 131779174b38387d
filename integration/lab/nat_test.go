//go:build linux

package lab

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestNATKinds(t *testing.T) {
	for _, tt := range []struct {
		name string
		nats []NAT
		want behaviour
	}{
		{"none", []NAT{{}}, behaviour{"endpoint", "endpoint", true, 0}},
		{"full cone", []NAT{{Mapping: MapCone, Filtering: FilterNone}}, behaviour{"endpoint", "endpoint", false, 0}},
		{"full cone that hairpins", []NAT{{Mapping: MapCone, Filtering: FilterNone, Hairpin: true}}, behaviour{"endpoint", "endpoint", false, 0}},
		{"address-restricted", []NAT{{Mapping: MapCone, Filtering: FilterAddress}}, behaviour{"endpoint", "address", false, 0}},
		{"port-restricted", []NAT{{Mapping: MapCone}}, behaviour{"endpoint", "port", false, 0}},
		{"Linux, input dropped", []NAT{{Mapping: MapKeepPort}}, behaviour{"endpoint", "port", true, 0}},
		// An open input remembers what was refused as a flow.
		{"symmetric sequential", []NAT{{Mapping: MapSequential}}, behaviour{"port", "port", false, 1}},
		{"symmetric random", []NAT{{Mapping: MapRandom}}, behaviour{"port", "port", false, 0}},
		{"double", []NAT{{Mapping: MapKeepPort}, {Mapping: MapCone}}, behaviour{"endpoint", "port", false, 0}},
		{"double, random outside", []NAT{{Mapping: MapRandom}, {Mapping: MapCone}}, behaviour{"port", "port", false, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, 1, tt.nats...)
			if tt.nats[0].Mapping == MapNone {
				b.server.Route(Route{Dst: netip.MustParsePrefix("10.1.0.0/24"), Via: netip.MustParseAddr("203.0.113.10")})
			}
			for _, port := range []uint16{4500, 4501} {
				if got := b.classify(port); got != tt.want {
					t.Errorf("port %d: %+v, want %+v", port, got, tt.want)
				}
			}
		})
	}
}

// TestNATClash sends a packet from outside to the port that a client is about to
// use: the reason why two ordinary Linux NATs do not open to each other.
func TestNATClash(t *testing.T) {
	for _, tt := range []struct {
		name string
		nat  NAT
		keep bool // the mapping that the client had before
	}{
		{"input open", NAT{Mapping: MapOpen}, false},
		{"input dropped", NAT{Mapping: MapKeepPort}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, 1, tt.nat)
			in := b.listen(b.inside[0], netip.AddrPortFrom(netip.IPv4Unspecified(), 4500))
			outer := b.mapped(in, b.at[0][0])
			if outer.Port() != 4500 {
				t.Fatalf("mapped to %s", outer)
			}
			early := b.at[1][0]
			if b.passes(early, outer, in, false) {
				t.Error("the NAT let an early packet in")
			}
			if got := b.mapped(in, early); (got == outer) != tt.keep {
				t.Errorf("mapped to %s after an early packet, to %s before", got, outer)
			}
		})
	}
}

func TestHairpin(t *testing.T) {
	for _, tt := range []struct {
		name string
		nat  NAT
		ok   bool
	}{
		{"on", NAT{Mapping: MapCone, Hairpin: true}, true},
		{"off", NAT{Mapping: MapCone}, false},
		{"Linux", NAT{Mapping: MapKeepPort}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, 2, tt.nat)
			var socks [2]*net.UDPConn
			var outer [2]netip.AddrPort
			for i, h := range b.inside {
				socks[i] = b.listen(h, netip.AddrPortFrom(netip.IPv4Unspecified(), 4500))
				outer[i] = b.mapped(socks[i], b.at[0][0])
			}
			if outer[0] == outer[1] {
				t.Fatalf("both mapped to %s", outer[0])
			}
			for i := range socks {
				if got := b.passes(socks[i], outer[1-i], socks[1-i], tt.ok); got != tt.ok {
					t.Errorf("client %d reaches the other by its outer address: %t", i, got)
				}
			}
			if !tt.ok {
				return
			}
			for i := range socks {
				if got := udpSource(t, socks[i], socks[1-i], outer[1-i]); got != outer[i] {
					t.Errorf("client %d is seen as %s, want %s", i, got, outer[i])
				}
			}
		})
	}
}

func TestIsolate(t *testing.T) {
	for _, isolate := range []bool{false, true} {
		nat := NAT{Mapping: MapCone, Hairpin: true, Isolate: isolate}
		b := newBench(t, 1, nat)
		l := b.router.lab
		lan := l.LAN("other", 0)
		b.router.Attach(lan, "lan2", prefixes("10.9.0.1/24")...)
		other := l.Host("other")
		other.Attach(lan, "eth0", prefixes("10.9.0.2/24")...)
		gw := netip.MustParseAddr("10.9.0.1")
		other.Route(Route{Dst: Default(gw), Via: gw})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := other.Ping(ctx, netip.MustParseAddr("10.1.0.2"), PingOptions{})
		cancel()
		if (err == nil) == isolate {
			t.Errorf("isolated %t: %v", isolate, err)
		}
		in, out := b.listen(b.inside[0], netip.MustParseAddrPort("0.0.0.0:4500")), b.listen(other, netip.MustParseAddrPort("0.0.0.0:4500"))
		to, from := b.mapped(in, b.at[0][0]), b.mapped(out, b.at[0][0])
		if got := udpSource(t, out, in, to); got != from {
			t.Errorf("isolated %t: seen as %s, want %s", isolate, got, from)
		}
	}
}

func TestNATReboot(t *testing.T) {
	for _, tt := range []struct {
		name string
		nat  NAT
		same bool // the mapping after it
	}{
		{"cone", NAT{Mapping: MapCone, Filtering: FilterNone}, false},
		{"Linux", NAT{Mapping: MapKeepPort}, true},
		{"sequential", NAT{Mapping: MapSequential}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, 1, tt.nat)
			in := b.listen(b.inside[0], netip.MustParseAddrPort("0.0.0.0:4500"))
			before := b.mapped(in, b.at[0][0])
			if err := b.router.Reboot(); err != nil {
				t.Fatal(err)
			}
			if b.passes(b.at[0][0], before, in, false) {
				t.Error("the old mapping still leads in")
			}
			if after := b.mapped(in, b.at[0][0]); (after == before) != tt.same {
				t.Errorf("mapped to %s, before to %s", after, before)
			}
		})
	}
}

func TestNATLifetime(t *testing.T) {
	for _, nat := range []NAT{
		{Mapping: MapKeepPort, Lifetime: time.Second},
		{Mapping: MapCone, Filtering: FilterNone, Lifetime: time.Second},
	} {
		b := newBench(t, 1, nat)
		in := b.listen(b.inside[0], netip.MustParseAddrPort("0.0.0.0:4500"))
		outer := b.mapped(in, b.at[0][0])
		if !b.passes(b.at[0][0], outer, in, true) {
			t.Fatalf("%+v: the mapping does not lead in", nat)
		}
		if received(t, in, []byte("nobody sends this"), 2500*time.Millisecond) {
			t.Fatal("somebody did")
		}
		if b.passes(b.at[0][0], outer, in, false) {
			t.Errorf("%+v: the mapping is still there", nat)
		}
	}
}

func TestRenumber(t *testing.T) {
	for _, nat := range []NAT{{Mapping: MapKeepPort}, {Mapping: MapCone, Hairpin: true}, {Mapping: MapSequential}} {
		b := newBench(t, 1, nat)
		far := netip.MustParsePrefix("192.0.2.0/24")
		b.router.Route(Route{Dst: far, Via: benchServers[0]})
		in := b.listen(b.inside[0], netip.MustParseAddrPort("0.0.0.0:4500"))
		outer := b.mapped(in, b.at[0][0])
		b.router.Renumber(netip.MustParsePrefix("203.0.113.99/24"))
		if b.passes(b.at[0][0], outer, in, false) {
			t.Errorf("%+v: the old address still leads in", nat)
		}
		got := b.mapped(in, b.at[0][0])
		if want := netip.MustParseAddr("203.0.113.99"); got.Addr() != want {
			t.Errorf("%+v: mapped to %s, want %s", nat, got, want)
		}
		if !b.passes(b.at[0][0], got, in, true) {
			t.Errorf("%+v: the new address does not lead in", nat)
		}
		b.server.AddAddr("lo", netip.PrefixFrom(far.Addr().Next(), 32))
		if _, err := b.inside[0].Ping(ctxFor(t, 5*time.Second), far.Addr().Next(), PingOptions{}); err != nil {
			t.Errorf("%+v: %v", nat, err)
		}
	}
}

// TestV6Firewall has a stateful firewall without translation for IPv6 only.
func TestV6Firewall(t *testing.T) {
	for _, tt := range []struct {
		v6       V6
		out, own bool // packets leave, with their own address
	}{{V6Firewall, true, true}, {V6NAT, true, false}, {V6Block, false, false}} {
		b := newBench(t, 1, NAT{Mapping: MapRandom, V6: tt.v6})
		b.server.AddAddr("eth0", prefixes("2001:db8:0:1::1/64")...)
		b.router.AddAddr("wan", prefixes("2001:db8:0:1::10/64")...)
		b.router.AddAddr("lan", prefixes("2001:db8:0:a::1/64")...)
		b.inside[0].AddAddr("eth0", prefixes("2001:db8:0:a::10/64")...)
		gw := netip.MustParseAddr("2001:db8:0:a::1")
		b.inside[0].Route(Route{Dst: Default(gw), Via: gw})
		b.server.Route(Route{Dst: netip.MustParsePrefix("2001:db8:0:a::/64"), Via: netip.MustParseAddr("2001:db8:0:1::10")})
		in := b.listen(b.inside[0], netip.MustParseAddrPort("[2001:db8:0:a::10]:4500"))
		server := b.listen(b.server, netip.MustParseAddrPort("[2001:db8:0:1::1]:4500"))
		if b.passes(server, netip.MustParseAddrPort("[2001:db8:0:a::10]:4500"), in, false) {
			t.Errorf("%v: a new flow passes inwards", tt.v6)
		}
		mark := []byte("out")
		if _, err := in.WriteToUDPAddrPort(mark, netip.MustParseAddrPort("[2001:db8:0:1::1]:4500")); err != nil {
			t.Fatal(err)
		}
		if got := received(t, server, mark, within(tt.out)); got != tt.out {
			t.Errorf("%v: a flow outwards passes: %t", tt.v6, got)
		}
		if !tt.out {
			continue
		}
		if got := b.mapped(in, server); (got.Addr() == netip.MustParseAddr("2001:db8:0:a::10")) != tt.own {
			t.Errorf("%v: seen as %s", tt.v6, got)
		}
		if !b.passes(server, b.mapped(in, server), in, true) {
			t.Errorf("%v: no answer comes back", tt.v6)
		}
	}
}

//go:build linux

package lab

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// punch has the nodes of two sites send to each other's outer address of port
// 4500, a few times, first with the given TTLs, and reports who got something.
func punch(t *testing.T, a, b *Domain, first ...int) (gotA, gotB bool) {
	t.Helper()
	sides := [2]*Domain{a, b}
	var socks [2]*net.UDPConn
	for i, d := range sides {
		c, err := d.Gateway().ListenUDP(netip.AddrPortFrom(d.Gateway().IP, 4500))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		socks[i] = c
	}
	mark := []byte("open")
	send := func(i, ttl int) {
		t.Helper()
		if err := ipv4.NewConn(socks[i]).SetTTL(ttl); err != nil {
			t.Fatal(err)
		}
		at := netip.AddrPortFrom(sides[1-i].WANAddr(), 4500)
		// An ICMP error about an earlier packet may come instead.
		for range 3 {
			if _, err := socks[i].WriteToUDPAddrPort(mark, at); err == nil {
				return
			}
		}
		t.Fatal("cannot send")
	}
	for _, ttl := range append(first, 64, 64, 64) {
		for i := range sides {
			send(i, ttl)
		}
	}
	ok := within(len(first) > 0 && first[0] < 5)
	return received(t, socks[0], mark, ok), received(t, socks[1], mark, ok)
}

// TestPunch shows with two ordinary Linux NATs why the first packets have a low
// TTL, and that the topology has a hop where they end.
func TestPunch(t *testing.T) {
	for _, tt := range []struct {
		name string
		nat  NAT
		low  []int
		ok   bool
		pass int // packets that reach the other NAT
	}{
		{"Linux", NAT{Mapping: MapOpen}, nil, false, 3},
		{"Linux, low TTL first", NAT{Mapping: MapOpen}, []int{2, 3, 4}, true, 3},
		{"Linux, TTL not low enough", NAT{Mapping: MapOpen}, []int{6}, false, 4},
		{"Linux, input dropped, low TTL first", NAT{Mapping: MapKeepPort}, []int{2}, true, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			topo := Internet(ForTest(t), InternetOptions{Sites: []Site{
				{Name: "a", NATs: []NAT{tt.nat}}, {Name: "b", NATs: []NAT{tt.nat}},
			}})
			a, b := topo.Domains[0], topo.Domains[1]
			early, err := b.Router.Capture("wan", func(f Frame) bool { return !f.Outgoing && f.Protocol == unix.IPPROTO_UDP && f.Src == a.WANAddr() })
			if err != nil {
				t.Fatal(err)
			}
			gotA, gotB := punch(t, a, b, tt.low...)
			if (gotA && gotB) != tt.ok {
				t.Errorf("a got something: %t, b: %t; want both %t", gotA, gotB, tt.ok)
			}
			if k := early.Count(); k != tt.pass {
				t.Errorf("%d packets reached the other NAT, want %d", k, tt.pass)
			}
		})
	}
}

func TestInternetRenumber(t *testing.T) {
	topo := Internet(ForTest(t), InternetOptions{Sites: []Site{
		{Name: "hub", Hub: true}, {Name: "a", NATs: []NAT{{Mapping: MapCone}}},
	}})
	hub, a := topo.Domains[0].Gateway(), topo.Domains[1]
	if _, err := hub.Serve(7000, hub.IP); err != nil {
		t.Fatal(err)
	}
	want := netip.MustParsePrefix("203.0.113.77/32")
	a.Router.Renumber(want)
	got, err := a.Gateway().WhoAmI(ctxFor(t, 10*time.Second), "udp", netip.AddrPortFrom(hub.IP, 7000))
	if err != nil || got != want.Addr() || a.WANAddr() != got {
		t.Errorf("seen as %s, %v; want %s", got, err, want.Addr())
	}
}

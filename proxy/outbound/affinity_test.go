package outbound

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestAffinities(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	one, two, nobody := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.Addr{}
	x, y, z := at("10.2.0.1:80"), at("10.2.0.2:80"), at("10.2.0.3:80")
	web := at("10.96.0.1:80")
	var a affinities
	for i, step := range []struct {
		now     time.Duration
		client  netip.Addr
		network string
		service netip.AddrPort
		list    []netip.AddrPort // ready, in the order of chance
		want    []netip.AddrPort
		keep    netip.AddrPort // what was reached, for ten seconds
	}{
		{0, one, "tcp", web, []netip.AddrPort{x, y, z}, []netip.AddrPort{x, y, z}, y},
		{1, one, "tcp", web, []netip.AddrPort{x, z, y}, []netip.AddrPort{y, x, z}, y},                 // first, and the others as they were
		{2, two, "tcp", web, []netip.AddrPort{x, y, z}, []netip.AddrPort{x, y, z}, x},                 // another client
		{2, nobody, "tcp", web, []netip.AddrPort{z, y, x}, []netip.AddrPort{z, y, x}, z},              // programs of this host
		{3, one, "udp", web, []netip.AddrPort{x, y}, []netip.AddrPort{x, y}, x},                       // another port
		{3, one, "tcp", at("10.96.0.2:80"), []netip.AddrPort{x, y}, []netip.AddrPort{x, y}, x},        // another Service
		{10, one, "tcp", web, []netip.AddrPort{x, y}, []netip.AddrPort{y, x}, y},                      // each use begins the time anew
		{19, one, "tcp", web, []netip.AddrPort{x, z}, []netip.AddrPort{x, z}, x},                      // gone
		{20, one, "tcp", web, []netip.AddrPort{y, x, z}, []netip.AddrPort{x, y, z}, z},                // and x failed
		{21, one, "tcp", web, []netip.AddrPort{y, x, z}, []netip.AddrPort{z, y, x}, netip.AddrPort{}}, // nothing was reached
		{30, one, "tcp", web, []netip.AddrPort{y, x, z}, []netip.AddrPort{y, x, z}, netip.AddrPort{}}, // ten seconds after 20
		{30, one, "tcp", web, nil, nil, netip.AddrPort{}},
	} {
		now := begin.Add(step.now * time.Second)
		k := affinityKey{step.client, step.network, step.service}
		list := slices.Clone(step.list)
		a.prefer(now, k, list)
		if !slices.Equal(list, step.want) {
			t.Errorf("step %d: %v, want %v", i, list, step.want)
		}
		if step.keep.IsValid() {
			a.keep(now, k, step.keep, 10*time.Second)
		}
	}
}

func TestAffinitiesBounded(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var a affinities
	key := func(i int) affinityKey {
		return affinityKey{netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}), "tcp", at("10.96.0.1:80")}
	}
	for i := range maxAffinities + 10 {
		a.keep(begin.Add(time.Duration(i)*time.Millisecond), key(i), at("10.2.0.1:80"), time.Hour)
	}
	if len(a.m) != maxAffinities {
		t.Errorf("%d are remembered", len(a.m))
	}
	if _, ok := a.m[key(9)]; ok {
		t.Error("the oldest is remembered")
	}
	if _, ok := a.m[key(10)]; !ok {
		t.Error("more than was needed is forgotten")
	}
	// One who is known takes no room.
	a.keep(begin.Add(time.Minute), key(10), at("10.2.0.2:80"), time.Hour)
	if len(a.m) != maxAffinities || a.m[key(10)].to != at("10.2.0.2:80") {
		t.Errorf("%d, %v", len(a.m), a.m[key(10)])
	}
	// What has lapsed goes all at once.
	a.keep(begin.Add(3*time.Hour), key(9), at("10.2.0.1:80"), time.Hour)
	if len(a.m) != 1 {
		t.Errorf("%d are remembered", len(a.m))
	}
}

// TestSessionAffinity: what is dialled is what the client was led to before.
func TestSessionAffinity(t *testing.T) {
	var list []netip.AddrPort
	for i := range 40 {
		list = append(list, at(fmt.Sprintf("10.2.0.%d:80", i+1)))
	}
	sticky := at("10.96.0.1:80")
	n := &choosy{tunnel: tunnel{}, refused: map[netip.AddrPort]bool{}}
	ready := list
	d, err := NewDialer(Config{
		Network: n, Reach: func(netip.Addr) bool { return true }, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		Endpoints: func(string, netip.AddrPort) ([]netip.AddrPort, error) { return slices.Clone(ready), nil },
		Affinity: func(_ string, to netip.AddrPort) time.Duration {
			if to == sticky {
				return time.Hour
			}
			return 0
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	dial := func(network, client, service string) string {
		t.Helper()
		ctx := t.Context()
		if client != "" {
			ctx = WithClient(ctx, netip.MustParseAddr(client))
		}
		before := len(n.all)
		var err error
		if network == "tcp" {
			_, err = d.DialTCP(ctx, service, 80)
		} else {
			_, err = d.DialUDP(ctx, service, 80)
		}
		if err != nil {
			t.Fatal(err)
		}
		return n.all[max(before, len(n.all)-1)]
	}
	seen := map[string]bool{}
	for _, network := range []string{"tcp", "udp"} {
		for _, client := range []string{"", "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"} {
			first := dial(network, client, "10.96.0.1")
			seen[first] = true
			for range 10 {
				if got := dial(network, client, "10.96.0.1"); got != first {
					t.Errorf("%s of %q is led to %s, then to %s", network, client, first, got)
				}
			}
		}
	}
	if len(seen) < 3 { // by chance: one in a million million
		t.Errorf("all clients are led to %v", seen)
	}
	// The endpoint refuses, and then is gone: another one, which is kept.
	first := dial("tcp", "127.0.0.1", "10.96.0.1")
	n.refused[at(first[len("tcp "):])] = true
	second := dial("tcp", "127.0.0.1", "10.96.0.1")
	if second == first || second != dial("tcp", "127.0.0.1", "10.96.0.1") {
		t.Errorf("first %s, then %s", first, second)
	}
	ready = slices.DeleteFunc(slices.Clone(list), func(a netip.AddrPort) bool { return "tcp "+a.String() == second })
	if third := dial("tcp", "127.0.0.1", "10.96.0.1"); third == second || third != dial("tcp", "127.0.0.1", "10.96.0.1") {
		t.Errorf("second %s, then %s", second, third)
	}
	// Those that are sent to without a connection are kept, too.
	udp, err := d.Targets(WithClient(t.Context(), netip.MustParseAddr("127.0.0.9")), "udp", sticky)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if again, err := d.Targets(WithClient(t.Context(), netip.MustParseAddr("::ffff:127.0.0.9")), "udp", sticky); err != nil || again[0] != udp[0] {
			t.Errorf("%v, then %v, %v", udp, again, err)
		}
	}
	// Without affinity it is chance.
	seen = map[string]bool{}
	for range 30 {
		seen[dial("tcp", "127.0.0.1", "10.96.0.2")] = true
	}
	if len(seen) < 3 {
		t.Errorf("a Service without affinity leads to %v", seen)
	}
}

package main

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

func TestResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a1, a2 := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
		var mu sync.Mutex // guards the three
		var answer []netip.Addr
		var fail error
		changes := 0
		r := newResolver(func() { mu.Lock(); changes++; mu.Unlock() })
		r.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			if host != "hub.example" {
				t.Errorf("looked up %q", host)
			}
			return append([]netip.Addr(nil), answer...), fail
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()

		for _, step := range []struct {
			name    string
			answer  []netip.Addr
			fail    error
			want    netip.Addr
			wantErr bool
			changes int
		}{
			{"first answer, lowest address", []netip.Addr{a2, a1}, nil, a1, false, 1},
			{"same answer in another order", []netip.Addr{a2, a1}, nil, a1, false, 1},
			{"server away: the address stays", nil, errors.New("timeout"), a1, true, 2},
			{"moved", []netip.Addr{a2}, nil, a2, false, 3},
			{"another one is added: stays", []netip.Addr{a1, a2}, nil, a2, false, 4},
			{"no address: stays", nil, nil, a2, true, 5},
		} {
			mu.Lock()
			answer, fail = step.answer, step.fail
			first := changes == 0
			mu.Unlock()
			if first {
				r.Want([]string{"hub.example"}) // the first look-up is at once
			} else {
				time.Sleep(resolveEvery) // virtual time
			}
			synctest.Wait()
			got, err := r.Addr("hub.example")
			mu.Lock()
			if got != step.want || (err != nil) != step.wantErr || changes != step.changes {
				t.Errorf("%s: Addr = %v, %v after %d changes; want %v, error %v, %d changes", step.name, got, err, changes, step.want, step.wantErr, step.changes)
			}
			mu.Unlock()
		}
		r.Want(nil)
		if got, _ := r.Addr("hub.example"); got.IsValid() {
			t.Errorf("an unwanted name still resolves to %v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestLimitMTU(t *testing.T) {
	k4, k6, mapped, probed := key.Public{4}, key.Public{6}, key.Public{7}, key.Public{9}
	prefix, small := netip.MustParsePrefix("10.244.9.0/24"), netip.MustParsePrefix("10.244.10.0/24")
	c := dataplane.Config{
		Peers: []dataplane.Peer{
			{PublicKey: k4, Endpoint: netip.MustParseAddrPort("203.0.113.1:4500")},
			{PublicKey: k6, Endpoint: netip.MustParseAddrPort("[2001:db8::1]:4500")},
			{PublicKey: probed, Endpoint: netip.MustParseAddrPort("[2001:db8::2]:4500")},
			{PublicKey: mapped, Endpoint: netip.MustParseAddrPort("[::ffff:203.0.113.1]:4500")},
		},
		Routes: []dataplane.Route{
			{Via: dataplane.ViaWireGuard, Peer: k4},
			{Via: dataplane.ViaWireGuard, Peer: k6},
			{Via: dataplane.ViaWireGuard, Peer: mapped},
			{Via: dataplane.ViaTUN},
			{Prefix: prefix, Via: dataplane.ViaWireGuard, Peer: probed, MTU: 1360},
			{Prefix: netip.MustParsePrefix("10.244.8.0/24"), Via: dataplane.ViaWireGuard, Peer: key.Public{8}, MTU: 1360},
			{Prefix: small, Via: dataplane.ViaWireGuard, Peer: key.Public{10}, MTU: 1360},
		},
		Host: []dataplane.HostRoute{{Prefix: prefix, MTU: 1360}, {Prefix: netip.MustParsePrefix("10.244.8.0/24"), MTU: 1360}, {Prefix: small, MTU: 1360}},
	}
	c.Self.MTU = 1408
	limitMTU(c, map[key.Public]int{probed: 1392, {8}: 9000, {10}: 1216})
	for i, want := range []struct{ mtu, tcp, carry int }{
		{0, 0, 0}, {0, dataplane.PathMTU6, 0}, {0, 0, 0}, {0, 0, 0}, {1392, 0, 1392}, {1408, 0, 1408}, {1216, 0, 1360},
	} {
		if got := c.Routes[i]; got.TCPMTU != want.tcp || got.MTU != want.mtu || got.Carry != want.carry {
			t.Errorf("route %d: MTU %d, TCPMTU %d, carry %d, want %+v", i, got.MTU, got.TCPMTU, got.Carry, want)
		}
	}
	for i, want := range []int{1392, 1408, 1360} {
		if got := c.Host[i].MTU; got != want {
			t.Errorf("host route %d: MTU %d, want %d", i, got, want)
		}
	}
}

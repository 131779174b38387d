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
			{"another one is added: stays", []netip.Addr{a1, a2}, nil, a2, false, 3},
			{"no address: stays", nil, nil, a2, true, 4},
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

func TestLimitTCP(t *testing.T) {
	k4, k6, mapped := key.Public{4}, key.Public{6}, key.Public{7}
	c := dataplane.Config{
		Peers: []dataplane.Peer{
			{PublicKey: k4, Endpoint: netip.MustParseAddrPort("203.0.113.1:4500")},
			{PublicKey: k6, Endpoint: netip.MustParseAddrPort("[2001:db8::1]:4500")},
			{PublicKey: mapped, Endpoint: netip.MustParseAddrPort("[::ffff:203.0.113.1]:4500")},
		},
		Routes: []dataplane.Route{
			{Via: dataplane.ViaWireGuard, Peer: k4},
			{Via: dataplane.ViaWireGuard, Peer: k6},
			{Via: dataplane.ViaWireGuard, Peer: mapped},
			{Via: dataplane.ViaTUN},
		},
	}
	limitTCP(c)
	for i, want := range []int{0, dataplane.PathMTU6, 0, 0} {
		if got := c.Routes[i].TCPMTU; got != want {
			t.Errorf("route %d: TCPMTU %d, want %d", i, got, want)
		}
	}
}

package main

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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

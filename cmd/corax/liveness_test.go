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

func TestLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addr := netip.MustParseAddr("fd63:6f72:6178::1")
		var mu sync.Mutex
		answers, busy, young, acted, pings := true, false, false, 0, 0
		l := newLiveness(func(ctx context.Context, a netip.Addr) (time.Duration, error) {
			mu.Lock()
			defer mu.Unlock()
			pings++
			if answers {
				return 8 * time.Millisecond, nil
			}
			return 0, errors.New("no answer")
		}, func() []target {
			mu.Lock()
			defer mu.Unlock()
			return []target{{addr: addr, busy: busy, silent: func() bool {
				mu.Lock()
				defer mu.Unlock()
				acted++
				return !young
			}}}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()

		for _, step := range []struct {
			name            string
			answers, busy   bool
			young           bool // the last handshake is: there can be no other yet
			wait            time.Duration
			minPings, acted int
			silent          bool
			maxPings        int
		}{
			{"idle: one in ten seconds", true, false, false, 20 * time.Second, 2, 0, false, 3},
			{"busy: one a second", true, true, false, 20 * time.Second, 19, 0, false, 21},
			{"dead and busy: acts after two, then every five seconds", false, true, false, 3 * time.Second, 3, 1, true, 4},
			{"still dead", false, true, false, 10 * time.Second, 9, 3, true, 11},
			{"back", true, true, false, 2 * time.Second, 1, 3, false, 3},
			{"dies while idle: noticed at the next ping, then each second", false, false, false, 13 * time.Second, 3, 4, true, 5},
			{"back again", true, true, false, 2 * time.Second, 1, 4, false, 3},
			{"dead, and nothing can be done: tries after each ping", false, true, true, 5 * time.Second, 5, 8, true, 6},
			{"now something can be done: once", false, true, false, 4 * time.Second, 3, 9, true, 5},
		} {
			mu.Lock()
			answers, busy, young, pings = step.answers, step.busy, step.young, 0
			mu.Unlock()
			time.Sleep(step.wait) // virtual time
			synctest.Wait()
			r, ok := l.Of(addr)
			mu.Lock()
			if !ok || pings < step.minPings || pings > step.maxPings || acted != step.acted || (r.silent > 0) != step.silent {
				t.Errorf("%s: %d pings (want %d to %d), acted %d times (want %d), silent %d (want silent: %v)",
					step.name, pings, step.minPings, step.maxPings, acted, step.acted, r.silent, step.silent)
			}
			mu.Unlock()
		}
		if r, _ := l.Of(addr); r.rtt != 8*time.Millisecond || r.loss <= 0 || r.loss >= 1 {
			t.Errorf("rtt %v, loss %v; want 8ms and some loss", r.rtt, r.loss)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestLivenessForgets(t *testing.T) {
	addr := netip.MustParseAddr("fd63:6f72:6178::1")
	targets := []target{{addr: addr}}
	l := newLiveness(func(context.Context, netip.Addr) (time.Duration, error) { return time.Millisecond, nil },
		func() []target { return targets })
	l.round(t.Context(), time.Unix(100, 0))
	if _, ok := l.Of(addr); !ok {
		t.Fatal("nothing known after a round")
	}
	targets = nil
	l.round(t.Context(), time.Unix(101, 0))
	if _, ok := l.Of(addr); ok {
		t.Error("still known after it is no target any more")
	}
}

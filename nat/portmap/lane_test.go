package portmap

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// fakeAsker is a router without a network. Its methods are called by one
// goroutine; the test looks when that one waits.
type fakeAsker struct {
	grant   grant
	err     error
	slow    time.Duration
	calls   []string
	renewed int
}

func (f *fakeAsker) mapAny(ctx context.Context, _ []netip.Addr, _ ask) (grant, error) {
	f.calls = append(f.calls, "map")
	select {
	case <-ctx.Done():
		return grant{}, ctx.Err()
	case <-time.After(f.slow):
		return f.grant, f.err
	}
}

func (f *fakeAsker) renew(context.Context, grant, ask) (grant, error) {
	f.renewed++
	return f.grant, f.err
}

func (f *fakeAsker) remove(context.Context, grant) error {
	f.calls = append(f.calls, "remove")
	return nil
}

// runLane runs a lane in the bubble; stop ends it and returns when it is joined.
func runLane(t *testing.T, f *fakeAsker, gws func() []netip.Addr, changed func()) (*lane, func()) {
	l := newLane(slog.New(slog.DiscardHandler), f, Config{Gateways: gws, Port: 4500, Changed: changed}, netip.Addr.Is4)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(ctx)
	}()
	synctest.Wait()
	return l, func() { cancel(); <-done }
}

func oneGateway() []netip.Addr { return []netip.Addr{gwA} }

func TestLaneKeepsAndDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ext := netip.MustParseAddrPort("203.0.113.1:40000")
		f := &fakeAsker{grant: grant{proto: NATPMP, gateway: gwA, external: ext, lifetime: 2 * time.Hour}, slow: time.Second}
		changes := 0
		l, stop := runLane(t, f, oneGateway, func() { changes++ })
		time.Sleep(24 * time.Hour)
		if len(f.calls) != 0 {
			t.Fatalf("%v although nothing is wanted", f.calls)
		}
		l.want(true)
		time.Sleep(24*time.Hour + time.Minute)
		synctest.Wait()
		if got, p, ok := l.offered(); !ok || got != ext || p != NATPMP {
			t.Fatalf("offered %v %v %t", got, p, ok)
		}
		if f.renewed != 24*6 || changes != 1 {
			t.Errorf("%d renewals in a day, want 144; %d changes, want 1", f.renewed, changes)
		}
		l.want(false)
		synctest.Wait()
		if _, _, ok := l.offered(); ok || changes != 2 {
			t.Errorf("offered %t, %d changes", ok, changes)
		}
		if want := []string{"map", "remove"}; !slices.Equal(f.calls, want) {
			t.Errorf("calls %v, want %v", f.calls, want)
		}
		stop()
	})
}

func TestLaneIdleNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAsker{err: ErrSilent, slow: time.Second}
		gws := oneGateway()
		l, stop := runLane(t, f, func() []netip.Addr { return gws }, func() { t.Error("changed") })
		l.want(true)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := len(f.calls); n < 24 || n > 32 {
			t.Errorf("a router that never answers was asked %d times a day", n)
		}
		n := len(f.calls)
		l.poke()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(f.calls) != n+1 {
			t.Errorf("asked %d times after a poke, want once", len(f.calls)-n)
		}
		stop()
	})
}

func TestLaneDoubleNAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAsker{grant: grant{proto: PCP, gateway: gwA, external: netip.MustParseAddrPort("100.64.3.4:4500"), lifetime: time.Hour}}
		l, stop := runLane(t, f, oneGateway, func() {})
		l.want(true)
		synctest.Wait()
		s := l.view.Load()
		if _, _, ok := l.offered(); ok || !s.DoubleNAT || s.Protocol != PCP {
			t.Errorf("offered %t; %+v", ok, s)
		}
		if want := "PCP maps 100.64.3.4:4500, which is no public address: there is another NAT in front of the router"; s.String() != want {
			t.Errorf("status %q", s)
		}
		stop()
		if want := []string{"map", "remove"}; !slices.Equal(f.calls, want) {
			t.Errorf("calls %v, want %v", f.calls, want)
		}
	})
}

// TestLaneStopsWhileAsking ends Run in the middle of a slow question.
func TestLaneStopsWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAsker{slow: time.Hour}
		l, stop := runLane(t, f, oneGateway, func() { t.Error("changed") })
		l.want(true)
		time.Sleep(time.Second)
		start := time.Now()
		stop()
		if d := time.Since(start); d != 0 {
			t.Errorf("stopped after %v", d)
		}
	})
}

package channel_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"corax/control"
	"corax/proxy"
	"corax/proxy/channel"
)

// far is a gateway node at the end of a path.
type far struct {
	alive time.Duration // since the start, from when the path works; negative: never
	trip  time.Duration // both ways
}

// paths answer as TCP does: whoever asks does so again after 1, 3, 7 and 15 s.
type paths struct {
	gateways
	started time.Time
	far     map[netip.Addr]far

	mu      sync.Mutex
	heard   map[netip.Addr]time.Time
	pending sync.WaitGroup
}

func (p *paths) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	f, began := p.far[to.Addr()], time.Now()
	answered := make(chan struct{})
	p.pending.Go(func() {
		for _, after := range []time.Duration{0, 1, 3, 7, 15} {
			time.Sleep(time.Until(began.Add(after * time.Second)))
			if f.alive >= 0 && time.Since(p.started) >= f.alive {
				time.Sleep(f.trip)
				p.mu.Lock()
				p.heard[to.Addr()] = time.Now()
				p.mu.Unlock()
				close(answered)
				return
			}
		}
	})
	select {
	case <-answered:
		return p.gateways.dial(ctx, to)
	case <-ctx.Done():
		p.gateways.note(to.Addr())
		return nil, context.Cause(ctx)
	}
}

func (p *paths) lastHeard(a netip.Addr) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard[a]
}

func newPaths(t *testing.T, all map[netip.Addr]far, via ...netip.Addr) (*paths, func() (netip.Addr, time.Duration, error)) {
	p := &paths{started: time.Now(), far: all, heard: map[netip.Addr]time.Time{}}
	p.answer = map[netip.Addr]func() (*proxy.Refusal, error){}
	for a := range all {
		p.answer[a] = serves
	}
	c, err := channel.New(channel.Config{Overlay: p.dial, Heard: p.lastHeard})
	if err != nil {
		t.Fatal(err)
	}
	c.Apply([]control.ProxyNode{{Name: "n1", Via: via, Ports: []uint16{10250}}})
	return p, func() (netip.Addr, time.Duration, error) {
		began := time.Now()
		conn, err := c.Dial(t.Context(), proxy.Target{Node: "n1", Port: 10250})
		if err != nil {
			return netip.Addr{}, time.Since(began), err
		}
		defer conn.Close()
		return conn.(*channel.Conn).Via, time.Since(began), nil
	}
}

// A gateway node that is dead costs a second once; one that is only slow is asked first
// the next time, as before.
func TestOvertakenGatewayNode(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name  string
		first far
		rest  time.Duration // between two requests
		over  [2]netip.Addr
		took  [2]time.Duration
		again netip.Addr // who is asked first by the second request
	}{
		{"it answers", far{0, 100 * ms}, 0, [2]netip.Addr{g1, g1}, [2]time.Duration{100 * ms, 100 * ms}, g1},
		{"it is slow", far{0, 1500 * ms}, time.Second, [2]netip.Addr{g2, g2}, [2]time.Duration{1100 * ms, 1100 * ms}, g1},
		{"it is a little slow", far{0, 1050 * ms}, time.Second, [2]netip.Addr{g1, g1}, [2]time.Duration{1050 * ms, 1050 * ms}, g1},
		{"it is dead", far{-1, 0}, time.Second, [2]netip.Addr{g2, g2}, [2]time.Duration{1100 * ms, 100 * ms}, g2},
		{"it is dead for long", far{-1, 0}, 31 * time.Second, [2]netip.Addr{g2, g2}, [2]time.Duration{1100 * ms, 1100 * ms}, g1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, dial := newPaths(t, map[netip.Addr]far{g1: tt.first, g2: {0, 100 * ms}}, g1, g2)
				for i := range 2 {
					p.asked = nil
					via, took, err := dial()
					if err != nil || via != tt.over[i] || took != tt.took[i] {
						t.Errorf("request %d: over %v after %v, %v; want %v after %v", i, via, took, err, tt.over[i], tt.took[i])
					}
					if i == 1 && (tt.again == g2) == slices.Contains(p.asked, g1) {
						t.Errorf("asked %v, want %v first", p.asked, tt.again)
					}
					time.Sleep(tt.rest)
				}
				p.open.Wait()
				p.pending.Wait()
			})
		})
	}
}

// A path that works again is used within a second or so: until then connections are
// dialled anew, since TCP asks ever more rarely.
func TestPathThatHeals(t *testing.T) {
	const trip = 100 * time.Millisecond
	for alive := 100 * time.Millisecond; alive < 4900*time.Millisecond; alive += 300 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			p, dial := newPaths(t, map[netip.Addr]far{g1: {alive, trip}}, g1)
			_, took, err := dial()
			switch {
			case err != nil && alive < 4*time.Second: // later it may be given up, when nothing came within five
				t.Errorf("alive after %v: %v", alive, err)
			case err == nil && (took < alive || took > alive+time.Second+trip):
				t.Errorf("alive after %v: connected after %v", alive, took)
			}
			p.open.Wait()
			p.pending.Wait()
		})
	}
}

package netstack

import (
	"context"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"corax/dataplane"
)

var (
	addrA = netip.MustParseAddr("fd63:6f72:6178::a")
	addrB = netip.MustParseAddr("fd63:6f72:6178::b")
)

// wire carries packets from one stack to another and can be told to do worse.
type wire struct {
	to dataplane.Sender

	mu      sync.Mutex
	filter  func(p []byte) bool // false: lose it
	packets int
	largest int
	batches int
}

func (w *wire) Send(batch []dataplane.Packet) {
	w.mu.Lock()
	w.batches++
	var pass []dataplane.Packet
	for _, p := range batch {
		w.packets++
		w.largest = max(w.largest, len(p.Data))
		if w.filter == nil || w.filter(p.Data) {
			pass = append(pass, p)
		}
	}
	to := w.to
	w.mu.Unlock()
	if to != nil && len(pass) > 0 {
		to.Send(pass)
	}
}

func (w *wire) lose(filter func(p []byte) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filter = filter
}

type pair struct {
	a, b   *Stack
	ab, ba *wire
	stop   func()
}

// newPair makes two stacks that are connected back to back, and runs them.
func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{ab: &wire{}, ba: &wire{}}
	p.a, p.b = mustNew(t, addrA, p.ab), mustNew(t, addrB, p.ba)
	p.ab.to, p.ba.to = p.b, p.a
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, s := range []*Stack{p.a, p.b} {
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	p.stop = func() {
		cancel()
		joined := make(chan struct{})
		go func() { wg.Wait(); close(joined) }()
		select {
		case <-joined:
		case <-time.After(20 * time.Second):
			buf := make([]byte, 1<<20)
			t.Fatalf("Run does not end:\n%s", buf[:runtime.Stack(buf, true)])
		}
	}
	t.Cleanup(p.stop)
	return p
}

func mustNew(t testing.TB, overlay netip.Addr, send dataplane.Sender) *Stack {
	t.Helper()
	s, err := New(Config{Overlay: overlay, Send: send})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// noLeaks fails the test when goroutines of the stack outlive it.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		deadline := time.After(10 * time.Second)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			buf := make([]byte, 1<<20)
			all := string(buf[:runtime.Stack(buf, true)])
			if !strings.Contains(all, "gvisor.dev") && !strings.Contains(all, "corax/dataplane/netstack.(*Stack)") {
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Errorf("goroutines left:\n%s", all)
				return
			}
		}
	})
}

func counter(s *Stack, name, reason string) uint64 {
	for _, c := range s.Counters() {
		if c.Name == name && c.Reason == reason {
			return c.Value
		}
	}
	return ^uint64(0)
}

func timeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

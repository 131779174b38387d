package wg

import (
	"testing"
	"time"
)

func TestBoundsWhole(t *testing.T) {
	all := Bounds{}.whole()
	if all.Batch != batchSize || all.Staged != maxStaged || all.Feed != feedSize || all.InFlight < batchSize || all.StagedAll != 0 || all.Handshakes != 0 {
		t.Errorf("of nothing: %+v", all)
	}
	small := Bounds{Batch: 16, InFlight: 32, Staged: 8, StagedAll: 24, Feed: 64, Handshakes: 50, SocketBuffer: 1, Slots: 2}
	if got := small.whole(); got != small {
		t.Errorf("%+v became %+v", small, got)
	}
	if got := (Bounds{Batch: 1000, Staged: 1000, Feed: 100_000}).whole(); got.Batch != batchSize || got.Staged != maxStaged || got.Feed != feedSize {
		t.Errorf("too much: %+v", got)
	}
	if (Bounds{Feed: -1}).check() == nil {
		t.Error("a bound below zero is taken")
	}
}

// TestGateStagedAll: packets for many peers without a session share one bound, and
// what a peer's session takes, or a peer that goes, is free again.
func TestGateStagedAll(t *testing.T) {
	g := newGate(Bounds{Staged: 8, StagedAll: 20}.whole())
	peers := []*peer{{}, {}, {}, {}}
	fill := func(now time.Duration) (n int) {
		for _, p := range peers {
			for range 100 {
				if g.admit(p, now) {
					n++
				}
			}
		}
		return n
	}
	if n := fill(0); n != 20 || g.staged != 20 {
		t.Fatalf("%d packets wait, %d counted, want 20", n, g.staged)
	}
	g.passed(peers[0], 8) // its session came
	g.sweep(peers, time.Millisecond)
	if g.staged != 12 {
		t.Errorf("%d wait after a session came, want 12", g.staged)
	}
	for range 100 {
		g.admit(peers[3], time.Millisecond)
	}
	if g.staged != 20 {
		t.Errorf("%d wait, want 20", g.staged)
	}
	peers = peers[2:]
	g.sweep(peers, time.Second)
	if want := peers[0].flow.staged + peers[1].flow.staged; g.staged != want {
		t.Errorf("%d wait after peers went, want %d", g.staged, want)
	}
}

// TestHandshakeBound: of handshake messages that come faster than the bound only
// the first are wireguard-go's, and the others are counted.
func TestHandshakeBound(t *testing.T) {
	for _, tc := range []struct {
		name      string
		perSecond int
		want      int // of 1000 at once
	}{
		{"no bound", 0, 1000},
		{"50 a second", 50, 10},
		{"1 a second", 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBind(nil, newTable(), new(drops), &Config{Bounds: Bounds{Handshakes: tc.perSecond}})
			r := &reader{b: b}
			got := 0
			for range 1000 {
				if r.room() {
					got++
				}
			}
			// A slow machine refills the bucket meanwhile.
			if got < tc.want || got > tc.want+tc.want/2+5 && tc.perSecond > 0 {
				t.Errorf("%d passed, want %d", got, tc.want)
			}
			if n := b.drops.n[dropBusy].Load(); n != uint64(1000-got) {
				t.Errorf("%d counted, want %d", n, 1000-got)
			}
		})
	}
}

// TestPairWithSmallBounds: two devices with the least of everything still carry
// packets, more at once than fit.
func TestPairWithSmallBounds(t *testing.T) {
	a, b := pair(t, "127.0.0.1", func(c *Config) {
		c.Bounds = Bounds{Batch: 1, InFlight: 1, Staged: 1, StagedAll: 1, Feed: 4, Handshakes: 50, SocketBuffer: 64 << 10, Slots: 2}
	})
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	for i := range uint32(20) {
		var many [][]byte
		for range 200 {
			many = append(many, packet(a.ip, b.ip, 1300, 1000+i))
		}
		send(a, many...)
		exchange(t, a, b, 10+i)
		exchange(t, b, a, 10+i)
	}
}

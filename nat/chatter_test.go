package nat

import (
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	type look struct {
		at            time.Duration
		total, hellos uint64
		data          uint64
	}
	for _, tt := range []struct {
		name  string
		looks []look
	}{
		{"data only", []look{{0, 3, 0, 3}, {1, 3, 0, 3}, {2, 10, 0, 10}}},
		{"hellos only", []look{{0, 3, 3, 0}, {1, 4, 4, 0}, {2, 4, 4, 0}}},
		{"both", []look{{0, 5, 3, 2}, {1, 7, 4, 3}}},
		{"hellos that wait for a session", []look{{0, 0, 3, 0}, {time.Second, 0, 3, 0}, {2 * time.Second, 5, 3, 2}}},
		{"hellos that got lost", []look{{0, 0, 3, 0}, {lateFor + 1, 2, 3, 2}}},
		{"a new peer in the tunnel", []look{{0, 10, 1, 9}, {1, 2, 1, 11}, {2, 4, 1, 13}}},
		{"a hello that is late does not hide more than itself", []look{{0, 0, 1, 0}, {1, 1, 1, 0}, {2, 2, 1, 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c tally
			for i, l := range tt.looks {
				if got := c.count(start.Add(l.at), l.total, l.hellos); got != l.data {
					t.Errorf("look %d: %d data packets, want %d", i, got, l.data)
				}
			}
		})
	}
}

// TestHellosAreCounted compares what the agent counts with what its tunnel does,
// while nothing but hellos is sent.
func TestHellosAreCounted(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		hub, a := w.node("hub"), w.node("a")
		w.run(time.Minute)
		for _, x := range [2][2]*node{{a, hub}, {hub, a}} {
			act, _ := x[0].dev.Activity(x[1].key)
			var sent, received uint64
			x[0].in(func(g *Agent) {
				p := g.peers[x[1].key]
				sent, received = p.chatter.sent.Load(), p.chatter.received.Load()
			})
			if sent != act.Sent || received != act.Received || sent == 0 || received == 0 {
				t.Errorf("%s: %d of %d sent, %d of %d received", x[0].name, sent, act.Sent, received, act.Received)
			}
		}
	})
}

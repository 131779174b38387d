package cost

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"corax/dataplane/key"
)

func sortedRoutes(rs ...Route) []Route {
	slices.SortFunc(rs, Route.compare)
	return rs
}

func via(h byte, cost time.Duration) Route { return Route{[]key.Public{name(h)}, cost} }

// Two equal routes under 20 % jitter: five minutes without a move.
func TestJitterDoesNotFlap(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 7))
		jitter := func(d time.Duration) time.Duration {
			return time.Duration(float64(d) * (0.8 + 0.4*rng.Float64()))
		}
		var c Chooser
		now := time.Unix(1, 0)
		c.Choose(now, sortedRoutes(via(10, jitter(50*ms)), via(11, jitter(50*ms))))
		for range 300 {
			now = now.Add(time.Second)
			if r, moved := c.Choose(now, sortedRoutes(via(10, jitter(50*ms)), via(11, jitter(50*ms)))); moved {
				t.Fatalf("seed %d: moved to %x after %v", seed, r.Hubs[0][0], now.Sub(time.Unix(1, 0)))
			}
		}
	}
}

// A probe in ten that takes twice as long, and one in forty that is lost, on one
// of two equal routes.
func TestOutliersDoNotMove(t *testing.T) {
	var c Chooser
	var bad, good Estimator
	now := time.Unix(1, 0)
	for i := range 600 {
		now = now.Add(time.Second)
		good.Answered(now, 80*ms)
		switch {
		case i%10 == 5:
			bad.Answered(now, 160*ms)
		case i%40 == 7:
			bad.Lost(now)
		default:
			bad.Answered(now, 80*ms)
		}
		if r, moved := c.Choose(now, sortedRoutes(via(10, bad.Cost()), via(11, good.Cost()))); moved && i > 0 {
			t.Fatalf("moved to %v after %d s", r, i)
		}
	}
	if r, _ := c.Current(); !r.Same(via(10, 0)) {
		t.Errorf("chose %v", r)
	}
}

func TestChooserMoves(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after []Route
		within        time.Duration // zero: never
		to            byte
	}{
		{"gone", []Route{via(10, 50*ms), via(11, 60*ms)}, []Route{via(11, 60*ms)}, time.Nanosecond, 11},
		{"a third cheaper", []Route{via(10, 90*ms), via(11, 95*ms)}, []Route{via(11, 59*ms), via(10, 90*ms)}, 3 * time.Second, 11},
		{"a quarter cheaper", []Route{via(10, 90*ms), via(11, 95*ms)}, []Route{via(11, 67*ms), via(10, 90*ms)}, time.Minute, 11},
		{"a tenth cheaper", []Route{via(10, 90*ms), via(11, 95*ms)}, []Route{via(11, 81*ms), via(10, 90*ms)}, 0, 0},
		{"half, but nothing", []Route{via(10, ms), via(11, ms)}, []Route{via(11, ms/2), via(10, ms)}, 0, 0},
		{"new and cheaper", []Route{via(10, 90*ms)}, []Route{via(11, 9*ms), via(10, 90*ms)}, 3 * time.Second, 11},
		{"no answer any more", []Route{via(10, 90*ms), via(11, 95*ms)}, []Route{via(11, 95*ms), via(10, Unknown)}, time.Nanosecond, 11},
		{"two relays", []Route{via(10, 90*ms)}, []Route{{[]key.Public{name(10), name(12)}, 20 * ms}}, time.Nanosecond, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c Chooser
			now := time.Unix(1, 0)
			if r, moved := c.Choose(now, tt.before); !moved || !r.Same(via(10, 0)) {
				t.Fatalf("first choice %v", r)
			}
			for range 60 {
				now = now.Add(time.Second)
				c.Choose(now, tt.before)
			}
			changed := now
			for now.Sub(changed) < 10*time.Minute {
				r, moved := c.Choose(now, tt.after)
				if moved {
					if tt.within == 0 || now.Sub(changed) > tt.within || r.Hubs[0] != name(tt.to) {
						t.Fatalf("moved to %v after %v", r, now.Sub(changed))
					}
					if cur, ok := c.Current(); !ok || !cur.Same(r) {
						t.Errorf("Current is %v", cur)
					}
					return
				}
				now = now.Add(time.Second)
			}
			if tt.within != 0 {
				t.Error("it stayed")
			}
		})
	}
	var c Chooser
	c.Choose(time.Unix(1, 0), []Route{via(10, ms)})
	if r, moved := c.Choose(time.Unix(2, 0), nil); !moved || len(r.Hubs) != 0 {
		t.Errorf("without routes: %v, %v", r, moved)
	}
	if _, ok := c.Current(); ok {
		t.Error("it still has a choice")
	}
}

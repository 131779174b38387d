package wg

import (
	"math/rand/v2"
	"testing"
	"time"

	"corax/dataplane/key"
)

func TestFairShare(t *testing.T) {
	for _, c := range []struct {
		name   string
		demand []uint64
		room   uint64
		want   int64
	}{
		{"nobody", nil, 100, 0},
		{"one above", []uint64{200}, 100, 100},
		{"all fits", []uint64{10, 20, 30}, 100, 30},
		{"equal", []uint64{100, 100, 100, 100}, 100, 25},
		{"small ones get all", []uint64{1000, 10, 10}, 100, 80},
		{"water fills up", []uint64{10, 40, 100}, 90, 40},
	} {
		if got := fairShare(c.demand, c.room); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	// The sum of what everybody gets is what there is, whatever they want.
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		demand := make([]uint64, 1+rng.IntN(20))
		var sum uint64
		for i := range demand {
			demand[i] = rng.Uint64N(1000)
			sum += demand[i]
		}
		room := rng.Uint64N(8000)
		share := uint64(fairShare(demand, room))
		var got uint64
		for _, d := range demand {
			got += min(d, share)
		}
		want := min(sum, room)
		if got > want || want-got >= uint64(len(demand)) {
			t.Fatalf("demand %v, room %d: share %d gives %d", demand, room, share, got)
		}
	}
}

// fairRelay is a relay that can carry limit bytes in each window, and loses what
// is above it as a full queue does: whoever comes last.
type fairRelay struct {
	*fair
	pairs []*relayPair
}

func newFairRelay(n int) *fairRelay {
	r := &relays{pairs: make(map[pairKey]*relayPair)}
	x := &fairRelay{fair: &fair{relays: r}}
	for i := range n {
		p := &relayPair{pairKey: pairKey{key.Public{byte(i)}, key.Public{byte(i), 1}}}
		r.pairs[p.pairKey] = p
		x.pairs = append(x.pairs, p)
	}
	return x
}

const fairFrame = 1000

// window lets each pair offer frames in turn, the greedy ones first, and returns
// how many of each were carried.
func (x *fairRelay) window(now int64, limit int, offer []int) []int {
	x.tick(now)
	carried := make([]int, len(offer))
	left := limit
	for i, p := range x.pairs {
		for range offer[i] {
			room := x.room(p)
			p.offered.Add(fairFrame)
			switch {
			case room < fairFrame:
				p.drops.Add(1)
			case left < fairFrame:
				x.lost(now)
				p.drops.Add(1)
			default:
				left -= fairFrame
				p.bytes.Add(fairFrame)
				carried[i]++
			}
		}
	}
	return carried
}

// TestFair: one pair sends ten times what the relay can carry, before the others
// get their turn. After three windows they lose next to nothing, and it
// still has the rest.
func TestFair(t *testing.T) {
	x := newFairRelay(3)
	now := time.Unix(1000, 0).UnixNano()
	step := func(offer ...int) []int {
		now += int64(fairWindow)
		return x.window(now, 100*fairFrame, offer)
	}
	if got := step(10, 10, 10); got[0] != 10 || got[2] != 10 || x.share.Load() != 0 {
		t.Fatalf("without loss: %v, share %d", got, x.share.Load())
	}
	if got := step(1000, 10, 10); got[1] != 0 {
		t.Fatalf("the flood did not fill the relay: %v", got)
	}
	step(1000, 10, 10)
	step(1000, 10, 10)
	// To find out what fits it tries a little more now and then.
	const windows = 200
	var sum [3]int
	for range windows {
		for i, n := range step(1000, 10, 10) {
			sum[i] += n
		}
	}
	if most := windows * 10; sum[1] < most*97/100 || sum[2] < most*97/100 || sum[0] < windows*60 {
		t.Errorf("carried %v in %d windows", sum, windows)
	}
	// The flood ends: so does the limit.
	for range 3 * fairCalm {
		step(10, 10, 10)
	}
	if x.share.Load() != 0 || x.fair.window.Load() != 0 {
		t.Errorf("share %d long after the last loss", x.share.Load())
	}
	if got := step(80, 10, 10); got[0] != 80 {
		t.Errorf("carried %v", got)
	}
}

// TestFairClock: a clock that is set back does not keep a limit for ever.
func TestFairClock(t *testing.T) {
	x := newFairRelay(2)
	now := time.Unix(1000, 0).UnixNano()
	for range 5 {
		now += int64(fairWindow)
		x.window(now, 10*fairFrame, []int{100, 5})
	}
	if x.share.Load() == 0 {
		t.Fatal("no limit")
	}
	now = time.Unix(10, 0).UnixNano()
	for range 3 * fairCalm {
		now += int64(fairWindow)
		x.window(now, 10*fairFrame, []int{1, 1})
	}
	if x.share.Load() != 0 {
		t.Error("the limit stays")
	}
}

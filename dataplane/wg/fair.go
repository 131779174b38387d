package wg

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// fairWindow is how long a pair's use counts against it.
	fairWindow = 10 * time.Millisecond
	// fairCalm is how many windows without loss end the limit; each one raises
	// it by a 64th before: so it meets the next loss first while the flood lasts.
	fairCalm = 32
	// fairFloor is what a pair may always pass in a window, in bytes: a handshake
	// and a few packets.
	fairFloor = 4096
)

// fair shares what a relay can carry among the pairs, while that is not enough.
// A full socket or receive queue is the sign that it is not. Then the capacity of
// the next window is a little less than what this one carried, until the signs
// end, and every pair gets as much as it wants up to the share with which the sum
// fits (max-min fairness). What a pair sends above its share is dropped before
// it can take the place of others'.
//
// The receive loops call tick, lost and room; they need no lock.
type fair struct {
	relays *relays
	share  atomic.Int64 // bytes per pair and window; zero: no limit
	signs  atomic.Uint64
	window atomic.Int64 // when it began, in nanoseconds; zero: no loss lately

	mu      sync.Mutex // held by the one that turns the window; guards what follows
	seen    uint64     // signs at the last turn
	calm    int        // windows without a sign
	whole   bool       // the window that ends next was whole
	carried uint64     // bytes of all pairs at the start of the window
	pairs   []*relayPair
	demand  []uint64
}

// lost says that something was lost for want of room.
func (f *fair) lost(now int64) {
	f.signs.Add(1)
	if f.window.Load() == 0 {
		f.turn(now)
	}
}

// tick turns the window when it is over.
func (f *fair) tick(now int64) {
	if w := f.window.Load(); w != 0 && over(now-w) {
		f.turn(now)
	}
}

// over reports whether a window that began age ago has ended; below zero the
// clock was set.
func over(age int64) bool { return age < 0 || age >= int64(fairWindow) }

// room returns how many bytes more pair p may pass in this window.
func (f *fair) room(p *relayPair) int64 {
	share := f.share.Load()
	if share == 0 {
		return math.MaxInt64
	}
	return share - int64(p.offered.Load()-p.base.Load())
}

func (f *fair) turn(now int64) {
	if !f.mu.TryLock() {
		return // another loop does it
	}
	defer f.mu.Unlock()
	w := f.window.Load()
	if w != 0 && !over(now-w) {
		return
	}
	signs := f.signs.Load()
	hit := signs != f.seen
	f.seen = signs
	f.pairs = f.relays.all(f.pairs)
	// The first window began in the middle of a burst, and after a pause the
	// figures are of more than one.
	fresh := f.whole && now-w > 0 && now-w < 2*int64(fairWindow)
	f.whole = w != 0
	carried, demand := f.measure()
	f.window.Store(now)
	switch share := f.share.Load(); {
	case hit && fresh:
		f.calm = 0
		f.share.Store(max(fairFloor, fairShare(demand, carried-carried/8)))
	case hit:
		f.calm = 0
	case share > 0 && f.calm < fairCalm:
		f.calm++
		f.share.Store(share + share/64 + 1)
	case f.calm < fairCalm:
		f.calm++
	default:
		f.share.Store(0)
		f.window.Store(0)
		f.whole = false
	}
}

// measure returns the bytes carried in the window, and what each pair wanted, and
// starts the next one.
func (f *fair) measure() (carried uint64, demand []uint64) {
	var total uint64
	f.demand = f.demand[:0]
	for _, p := range f.pairs {
		total += p.bytes.Load()
		offered := p.offered.Load()
		if d := offered - p.base.Load(); d > 0 {
			f.demand = append(f.demand, d)
		}
		p.base.Store(offered)
	}
	if total > f.carried { // less: a pair is gone
		carried = total - f.carried
	}
	f.carried = total
	return carried, f.demand
}

// fairShare returns the s for which the sum of min(d, s) over demand is room,
// and the largest demand when all of it fits. It sorts demand.
func fairShare(demand []uint64, room uint64) int64 {
	slices.Sort(demand)
	for i, d := range demand {
		left := uint64(len(demand) - i)
		if d*left >= room {
			return int64(room / left)
		}
		room -= d
	}
	if len(demand) == 0 {
		return 0
	}
	return int64(demand[len(demand)-1])
}

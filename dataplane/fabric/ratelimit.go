package fabric

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// The bounds of ICMP errors. Together they cap what a flood of bad packets can
// make us send; per source they keep one broken sender from using up the path
// MTU discovery of all the others.
const (
	icmpEvery       = time.Second / 1000
	icmpBurst       = 100
	icmpSourceEvery = time.Second / 20
	icmpSourceBurst = 20
	icmpSources     = 256 // sources share a bucket by hash
)

// bucket is a token bucket without a lock (the generic cell rate algorithm):
// the time, in nanoseconds after the limiter's start, at which it is full
// again. The zero value is full.
type bucket struct{ full atomic.Int64 }

// take takes one token at the time now, unless none is left.
func (b *bucket) take(now int64, every time.Duration, burst int) bool {
	for {
		old := b.full.Load()
		next := max(old, now) + int64(every)
		if next-now > int64(burst)*int64(every) {
			return false
		}
		if b.full.CompareAndSwap(old, next) {
			return true
		}
	}
}

// limiter says whether one more ICMP error may be sent. It must be initialised.
type limiter struct {
	start    time.Time
	seed     maphash.Seed
	all      bucket
	bySource [icmpSources]bucket
}

func (l *limiter) init(now time.Time) {
	l.start = now
	l.seed = maphash.MakeSeed()
}

// allow reports whether an error may go to src at the time now.
func (l *limiter) allow(src netip.Addr, now time.Time) bool {
	t := int64(now.Sub(l.start))
	h := maphash.Comparable(l.seed, src)
	return l.bySource[h%icmpSources].take(t, icmpSourceEvery, icmpSourceBurst) &&
		l.all.take(t, icmpEvery, icmpBurst)
}

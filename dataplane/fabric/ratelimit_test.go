package fabric

import (
	"net/netip"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	const every, burst = 100 * time.Millisecond, 3
	steps := []struct {
		now  time.Duration
		want bool
	}{
		{0, true},
		{0, true},
		{0, true},
		{0, false},
		{99 * time.Millisecond, false},
		{100 * time.Millisecond, true},
		{100 * time.Millisecond, false},
		{300 * time.Millisecond, true},
		{300 * time.Millisecond, true},
		{300 * time.Millisecond, false},
		{time.Hour, true},
		{time.Hour, true},
		{time.Hour, true},
		{time.Hour, false},
	}
	var b bucket
	for i, s := range steps {
		if got := b.take(int64(s.now), every, burst); got != s.want {
			t.Errorf("step %d at %v: %v, want %v", i, s.now, got, s.want)
		}
	}
}

func TestLimiterPerSource(t *testing.T) {
	start := time.Unix(1000, 0)
	var l limiter
	l.init(start)
	noisy, quiet := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	n := 0
	for range 1000 {
		if l.allow(noisy, start) {
			n++
		}
	}
	if n != icmpSourceBurst {
		t.Errorf("one source got %d answers at once, want %d", n, icmpSourceBurst)
	}
	// The two may share a bucket by chance: then the seed is drawn again.
	for range 8 {
		if l.allow(quiet, start) {
			break
		}
		l.init(start)
	}
	if !l.allow(quiet, start) {
		t.Error("a second source got no answer")
	}
	all := 0
	for i := range 10_000 {
		if l.allow(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), start) {
			all++
		}
	}
	if all >= icmpBurst || all < icmpBurst-icmpSourceBurst-10 {
		t.Errorf("all sources got %d answers at once, want what is left of %d", all, icmpBurst)
	}
	if !l.allow(noisy, start.Add(icmpSourceEvery)) {
		t.Error("no answer after the interval")
	}
}

func TestErrorsAreLimited(t *testing.T) {
	w := newWorld(t)
	const sent = 200
	for range sent {
		w.From(FromTUN).Send(batchOf(1, spec{src: "10.1.0.5", dst: "10.9.0.1"}.udp(nil).build()))
	}
	made, limited := w.count(t, "fabric_icmp_total", "no_route"), w.count(t, "fabric_icmp_suppressed_total", "rate_limit")
	if made != icmpSourceBurst || made+limited != sent {
		t.Errorf("made %d, limited %d of %d", made, limited, sent)
	}
	if n := len(w.out[FromTUN].got); n != icmpSourceBurst {
		t.Errorf("%d errors went out", n)
	}
	w.now = w.now.Add(time.Second)
	w.From(FromTUN).Send(batchOf(1, spec{src: "10.1.0.5", dst: "10.9.0.1"}.udp(nil).build()))
	if n := w.count(t, "fabric_icmp_total", "no_route"); n != icmpSourceBurst+1 {
		t.Errorf("made %d after a second, want %d", n, icmpSourceBurst+1)
	}
}

package natlab_test

import (
	"encoding/binary"
	"time"
)

// traffic is what one end sent to and got from the other, by counter.
type traffic struct {
	every     time.Duration
	started   time.Time
	stop      bool
	sent      uint64
	got       []time.Time // by the other's counter, zero: not arrived
	newest    uint64
	reordered int
	doubled   int
}

// start sends a data packet every so often.
func (p *peer) start(every time.Duration) {
	p.traffic.every, p.traffic.started, p.traffic.stop = every, p.e.s.lab.Now(), false
	var tick func()
	tick = func() {
		if p.traffic.stop || p.e.dead {
			return
		}
		p.want()
		b := binary.BigEndian.AppendUint64(head(pktData, p.e.id, p.id), p.traffic.sent)
		p.traffic.sent++
		p.sent++
		p.sample()
		_ = p.send(p.way, append(b, make([]byte, 40)...), 0, false)
		p.e.s.lab.After(every, tick)
	}
	tick()
}

func (t *traffic) arrived(n uint64, now time.Time) {
	for uint64(len(t.got)) <= n {
		t.got = append(t.got, time.Time{})
	}
	switch {
	case !t.got[n].IsZero():
		t.doubled++
	case n < t.newest:
		t.reordered++
	}
	t.newest = max(t.newest, n)
	if t.got[n].IsZero() {
		t.got[n] = now
	}
}

// first is how long the other end's traffic took to arrive at first.
func (t *traffic) first(from *traffic) (time.Duration, bool) {
	for _, at := range t.got {
		if !at.IsZero() {
			return at.Sub(from.started), true
		}
	}
	return 0, false
}

// gap is the longest time in which everything was lost that the other end sent
// between two of its moments. What was under way when something happened is not
// counted: nothing could save it.
func (t *traffic) gap(from *traffic, begin, end time.Time, marks []time.Time) (longest time.Duration, at time.Time) {
	var first uint64 // of the run
	for n := range from.sent {
		sentAt := from.sentAt(n)
		if sentAt.Before(begin) || sentAt.After(end) || n < uint64(len(t.got)) && !t.got[n].IsZero() {
			first = n + 1
			continue
		}
		start := from.sentAt(first)
		for _, m := range marks {
			if m.After(start) && m.Sub(start) < maxUnderWay {
				start = m
			}
		}
		if run := sentAt.Sub(start); run > longest {
			longest, at = run, start
		}
	}
	return longest, at
}

// maxUnderWay is longer than anything takes one way.
const maxUnderWay = 500 * time.Millisecond

func (t *traffic) sentAt(n uint64) time.Time { return t.started.Add(time.Duration(n) * t.every) }

func (t *traffic) lost(from *traffic) int {
	n := int(from.sent)
	for _, at := range t.got {
		if !at.IsZero() {
			n--
		}
	}
	return n
}

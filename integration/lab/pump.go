//go:build linux

package lab

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultQueue = 1000
	maxQueue     = 10000
)

// Shape is what a userspace link does to the frames of one direction. The zero
// value passes them at once, loses none and waits for a slow receiver.
// Frames never overtake one another.
type Shape struct {
	Delay  time.Duration
	Jitter time.Duration // each frame is delayed by up to this much less or more
	Loss   float64       // of each frame, from 0 to 1
	Rate   int           // bytes a second; 0 means unlimited
	Queue  int           // frames that may wait, those delayed included; 0 means 1000, at most 10000
}

func (s Shape) check() error {
	if s.Delay < 0 || s.Jitter < 0 || s.Loss < 0 || s.Loss > 1 || s.Rate < 0 || s.Queue < 0 || s.Queue > maxQueue {
		return fmt.Errorf("shape %+v is out of range", s)
	}
	return nil
}

// pump moves frames from one TAP to another. One goroutine reads, one for each
// lane writes.
type pump struct {
	pumpCounters
	from, to *os.File
	other    func(Frame) netip.Addr // the far end of a packet
	done     chan struct{}
	wg       *sync.WaitGroup
	frames   sync.Pool // of *frame

	mu    sync.Mutex // of set
	lanes atomic.Pointer[[]*lane]
}

// lane is the queue of packets to one prefix.
type lane struct {
	*pump
	prefix netip.Prefix // zero: everything
	shape  atomic.Pointer[Shape]
	queue  chan *frame

	free time.Time // when the link has sent all before; the reader's
}

type frame struct {
	b   []byte
	due time.Time
}

func newPump(from, to *os.File, other func(Frame) netip.Addr, mtu int, wg *sync.WaitGroup) *pump {
	p := &pump{from: from, to: to, other: other, done: make(chan struct{}), wg: wg}
	size := max(mtu, 1500) + 64
	p.frames.New = func() any { return &frame{b: make([]byte, size)} }
	p.lanes.Store(new([]*lane))
	return p
}

// set changes the shape of a prefix, the zero one being the last to be asked.
func (p *pump) set(prefix netip.Prefix, s Shape) error {
	if err := s.check(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := *p.lanes.Load()
	for _, l := range old {
		if l.prefix == prefix {
			l.shape.Store(&s)
			return nil
		}
	}
	l := &lane{pump: p, prefix: prefix, queue: make(chan *frame, maxQueue)}
	l.shape.Store(&s)
	p.wg.Go(l.write)
	lanes := append([]*lane(nil), old...)
	if n := len(lanes); n == 0 {
		lanes = append(lanes, l)
	} else {
		lanes = append(lanes[:n-1:n-1], l, lanes[n-1])
	}
	p.lanes.Store(&lanes)
	return nil
}

// run reads until the TAP is closed.
func (p *pump) run() {
	for {
		f := p.frames.Get().(*frame)
		f.b = f.b[:cap(f.b)]
		n, err := p.from.Read(f.b)
		if err != nil {
			return
		}
		f.b = f.b[:n]
		p.laneOf(f.b).put(f)
	}
}

func (p *pump) laneOf(b []byte) *lane {
	lanes := *p.lanes.Load()
	if len(lanes) > 1 {
		f := Frame{Data: b}
		f.parse(true)
		other := p.other(f)
		for _, l := range lanes[:len(lanes)-1] {
			if l.prefix.Contains(other) {
				return l
			}
		}
	}
	return lanes[len(lanes)-1]
}

func source(f Frame) netip.Addr      { return f.Src }
func destination(f Frame) netip.Addr { return f.Dst }

// put says when the frame is due and queues it.
func (l *lane) put(f *frame) {
	s := *l.shape.Load()
	if s == (Shape{}) {
		f.due = time.Time{}
		select {
		case l.queue <- f:
		case <-l.done:
		}
		return
	}
	if s.Loss > 0 && rand.Float64() < s.Loss {
		l.lost.Add(1)
		l.frames.Put(f)
		return
	}
	limit := s.Queue
	if limit == 0 {
		limit = defaultQueue
	}
	if len(l.queue) >= limit {
		l.full.Add(1)
		l.frames.Put(f)
		return
	}
	f.due = time.Now()
	if s.Rate > 0 {
		if l.free.Before(f.due) {
			l.free = f.due
		}
		l.free = l.free.Add(time.Duration(len(f.b)) * time.Second / time.Duration(s.Rate))
		f.due = l.free
	}
	f.due = f.due.Add(s.Delay)
	if s.Jitter > 0 {
		f.due = f.due.Add(time.Duration(rand.Int64N(int64(2*s.Jitter))) - s.Jitter)
	}
	l.queue <- f // only this goroutine fills it
}

// write sends what is due until the pump ends.
func (l *lane) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-l.done:
			return
		case f := <-l.queue:
			if d := time.Until(f.due); d > 0 {
				timer.Reset(d)
				select {
				case <-l.done:
					return
				case <-timer.C:
				}
			}
			if _, err := l.to.Write(f.b); err != nil {
				l.failed.Add(1)
			} else {
				l.passed.Add(1)
			}
			l.frames.Put(f)
		}
	}
}

package hello

import (
	"bytes"
	"container/heap"
	"net"
	"time"

	"golang.org/x/time/rate"

	"corax/dataplane/key"
)

const (
	// What a peer is sent at most: messages per second, and at once. A value of
	// 128 parts must fit into the burst.
	outRate, outBurst = 50, 128
	// What a peer may send; more, since two of its bursts may meet.
	inRate, inBurst = 100, 512
)

// repeats is when a change is said again: a lost message would otherwise be
// missed until the next heartbeat.
func repeats(said int) (time.Duration, bool) {
	switch said {
	case 1:
		return 200 * time.Millisecond, true
	case 2:
		return time.Second, true
	}
	return 0, false
}

// peer is what we say to one peer and what it says.
type peer struct {
	key    key.Public
	addr   *net.UDPAddr
	active bool
	beat   time.Time // the next heartbeat
	out    [topicEnd]saying
	outLim *rate.Limiter
	in     inbound
	inLim  *rate.Limiter

	wake  time.Time // its place in the queue; zero: not in it
	index int
}

// saying is what we say to a peer on one topic.
type saying struct {
	value    []byte // nil: nothing
	sequence uint64
	due      time.Time // zero: nothing to do before the next heartbeat
	said     int       // times, since the last change
}

func newPeer(k key.Public) *peer {
	return &peer{
		key:    k,
		addr:   &net.UDPAddr{IP: k.Overlay().AsSlice(), Port: Port},
		outLim: rate.NewLimiter(outRate, outBurst),
		inLim:  rate.NewLimiter(inRate, inBurst),
		index:  -1,
	}
}

func (e *Exchange) setLocked(p *peer, t Topic, b []byte) {
	s := &p.out[t]
	if s.value != nil && bytes.Equal(s.value, b) {
		return
	}
	// One counter for all: a peer that was forgotten and comes back never sees
	// a sequence go down, and nothing must be kept for that.
	e.sequence++
	s.value, s.sequence, s.said = b, e.sequence, 0
	if soon := e.cfg.Now().Add(coalesce); s.due.IsZero() || soon.Before(s.due) {
		s.due = soon
	}
	e.scheduleLocked(p)
}

func (e *Exchange) resendLocked(p *peer) {
	now := e.cfg.Now()
	for i := range p.out {
		if s := &p.out[i]; s.value != nil {
			s.said, s.due = 0, now.Add(coalesce)
		}
	}
	p.beat = now.Add(Heartbeat)
	e.scheduleLocked(p)
}

// scheduleLocked puts p where it belongs in the queue.
func (e *Exchange) scheduleLocked(p *peer) {
	wake := p.in.expiry()
	if p.active {
		wake = earlier(wake, p.beat)
	}
	for i := range p.out {
		wake = earlier(wake, p.out[i].due)
	}
	head := e.queue.head()
	e.queue.set(p, wake)
	if e.queue.head() != head || head == p {
		select {
		case e.kick <- struct{}{}:
		default:
		}
	}
}

// earlier returns the earlier of two times, where zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// queue orders peers by wake.
type queue struct{ heap peerHeap }

func (q *queue) head() *peer {
	if len(q.heap) == 0 {
		return nil
	}
	return q.heap[0]
}

func (q *queue) set(p *peer, wake time.Time) {
	p.wake = wake
	switch {
	case wake.IsZero():
		q.remove(p)
	case p.index < 0:
		heap.Push(&q.heap, p)
	default:
		heap.Fix(&q.heap, p.index)
	}
}

func (q *queue) remove(p *peer) {
	if p.index >= 0 {
		heap.Remove(&q.heap, p.index)
	}
}

type peerHeap []*peer

func (h peerHeap) Len() int           { return len(h) }
func (h peerHeap) Less(i, j int) bool { return h[i].wake.Before(h[j].wake) }

func (h peerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *peerHeap) Push(x any) {
	p := x.(*peer)
	p.index = len(*h)
	*h = append(*h, p)
}

func (h *peerHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	p.index = -1
	return p
}

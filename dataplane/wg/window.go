package wg

import (
	"sync/atomic"
	"time"
)

// How often a full window is looked at, and how long nothing may move in it. The
// attack bounded: somebody on the path who sees session indices forges messages,
// which wireguard-go drops without a word. The window must not stay full of them.
const (
	inboundStep  = 500 * time.Microsecond
	inboundStall = 2 * time.Millisecond
)

// window bounds the packets on their way from the bind to the link's Write. The
// receive loops add and wait, Write takes. Packets that wireguard-go drops
// (replays, forgeries) never reach Write: when nothing moves and no Write is at
// work, what is left is given up.
type window struct {
	bound  int64
	n      atomic.Int64
	moved  atomic.Uint64 // calls of take
	busy   atomic.Int32  // Writes at work
	wake   chan struct{} // capacity 1
	resets atomic.Uint64
}

func newWindow(b Bounds) *window {
	return &window{bound: int64(b.InFlight), wake: make(chan struct{}, 1)}
}

func (w *window) add(n int) { w.n.Add(int64(n)) }

func (w *window) take(n int) {
	w.moved.Add(1)
	if w.n.Add(-int64(n)) < 0 {
		w.n.Store(0)
	}
	w.signal()
}

func (w *window) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// wait blocks while the window is full. It returns false when closed is closed.
// The timer belongs to the caller's goroutine.
func (w *window) wait(timer *time.Timer, closed <-chan struct{}) bool {
	idle := 0
	for w.n.Load() >= w.bound {
		moved := w.moved.Load()
		timer.Reset(inboundStep)
		select {
		case <-closed:
			return false
		case <-w.wake:
		case <-timer.C:
		}
		if w.moved.Load() != moved || w.busy.Load() > 0 {
			idle = 0
			continue
		}
		if idle++; time.Duration(idle)*inboundStep >= inboundStall {
			w.n.Store(0)
			w.resets.Add(1)
		}
	}
	if w.n.Load() < w.bound/2 {
		w.signal() // another loop may wait too
	}
	return true
}

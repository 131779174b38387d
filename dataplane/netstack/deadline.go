package netstack

import (
	"sync"
	"time"
)

// deadline is a channel that is closed when a time has come. The zero deadline is
// none.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{} // nil until somebody asks
}

// wait returns the channel of the present deadline.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.channelLocked()
}

func (d *deadline) channelLocked() chan struct{} {
	if d.done == nil {
		d.done = make(chan struct{})
	}
	return d.done
}

// set replaces the deadline; a zero time means none. Who waits already is held to
// the new one, unless the old one has come.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		d.done = nil // it has been closed, or is about to be
	}
	d.timer = nil
	if d.done != nil {
		select {
		case <-d.done:
			d.done = nil
		default:
		}
	}
	if t.IsZero() {
		return
	}
	done := d.channelLocked()
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(done) })
	} else {
		close(done)
	}
}

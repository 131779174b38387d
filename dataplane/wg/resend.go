package wg

import (
	"context"
	"time"

	"corax/dataplane/key"
)

const (
	// resendEvery is how long an initiation stays unanswered before it is sent
	// once more. WireGuard itself waits five seconds, which an agent that
	// starts a moment before its hub would spend in silence.
	resendEvery = time.Second
	// maxResends bounds the copies: then WireGuard makes a new initiation.
	maxResends = 3
	// crossFor is how long after an initiation one of the peer can still have
	// been sent without knowledge of it: more than any way there takes.
	crossFor = resendEvery / 2
)

// pending is the initiation that a peer has not answered yet. The same bytes may
// go out again: a responder that had the first takes the copy for a replay, one
// that had not takes it for what it is.
type pending struct {
	n       int // length; zero: nothing is pending
	resends int
	at      time.Time // sent last
	crossed bool      // sent again because one of the peer came meanwhile
	held    time.Time // not sent again before
	msg     [sizeInitiation]byte
}

// await notes an initiation that is being sent.
func (p *peer) await(msg []byte, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = pending{at: now}
	p.pending.n = copy(p.pending.msg[:], msg)
}

// answered ends the wait for an answer to the initiation of session index i.
func (p *peer) answered(i uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending.n > 0 && index(p.pending.msg[:], offSender) == i {
		p.pending.n = 0
	}
}

// overtaken ends the wait because the peer's own initiation is being answered:
// with that wireguard-go forgets ours, and could not use an answer to it.
func (p *peer) overtaken() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending.n = 0
}

// yields reports whether an initiation that comes over the peer's path now is to
// be ignored because it crossed ours. If both sides answered, each would forget
// its own initiation before the answer to it comes, and neither had a session
// for five seconds. So the lower key goes first. It gives way at its second copy:
// then nothing of ours seems to arrive.
//
// One that does not yield will be answered in a moment, so the next copy of ours
// is held back until then. Once: forged ones may delay it, not stop it.
func (p *peer) yields(self key.Public, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &p.pending
	if self.Less(p.key) && d.n > 0 && d.resends < 2 && now.Sub(d.at) < crossFor {
		return true
	}
	if d.held.Before(d.at) {
		d.held = now.Add(crossFor)
	}
	return false
}

// crossed returns a copy of the initiation that one of the peer crossed, once for
// each. Ours may not have arrived: the first that goes over a relay can be there
// before its label is known. The peer's was dropped here, so it would take until
// the next copy, a second, for a session to come.
func (p *peer) crossed() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &p.pending
	if d.n == 0 || d.crossed {
		return nil
	}
	d.crossed = true
	return append([]byte(nil), d.msg[:d.n]...)
}

// overdue returns a copy of the initiation when it is time to send it again.
func (p *peer) overdue(now time.Time) (msg []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &p.pending
	if d.n == 0 || now.Sub(d.at) < resendEvery || now.Before(d.held) {
		return nil
	}
	if d.resends++; d.resends > maxResends {
		d.n = 0
		return nil
	}
	d.at = now
	return append([]byte(nil), d.msg[:d.n]...)
}

// resendLoop sends unanswered initiations again until ctx ends.
func (b *bind) resendLoop(ctx context.Context) {
	tick := time.NewTicker(resendEvery / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, p := range b.table.all() {
				w := p.path.Load()
				if w == nil || !w.ready() {
					continue
				}
				if msg := p.overdue(now); msg != nil {
					b.write([][]byte{msg}, &w.way)
				}
			}
		}
	}
}

package wg

import (
	"context"
	"sync"
	"time"

	"corax/dataplane/key"
)

const (
	// resendAfter is how long an initiation stays unanswered before it is sent
	// once more; each further copy waits twice as long. WireGuard itself waits
	// five seconds, which an agent that starts a moment before its hub, and
	// whoever sends the first packet of a connection, would spend in silence.
	resendAfter = 300 * time.Millisecond
	// maxResends bounds the copies: then WireGuard makes a new initiation.
	maxResends = 3
	// resendTick is how often a wait for an answer is looked at.
	resendTick = 50 * time.Millisecond
	// crossFor is how long after our first initiation one of the peer can still
	// have been sent without knowledge of it: more than any way there takes.
	crossFor = 1200 * time.Millisecond
	// answerFor is how long wireguard-go may take to answer an initiation.
	answerFor = 200 * time.Millisecond
	// replyFor is how long a response is kept for copies of what it answers:
	// as long as WireGuard waits for it.
	replyFor = 5 * time.Second
)

// pending is the initiation that a peer has not answered yet. The same bytes may
// go out again: a responder that had the first sends its response once more, one
// that had not takes it for what it is.
type pending struct {
	n       int // length; zero: nothing is pending
	sent    int // how often it went out
	first   time.Time
	due     time.Time // when it goes out next
	crossed bool      // sent again because one of the peer came meanwhile
	msg     [sizeInitiation]byte
}

// answering is an initiation of the peer that wireguard-go is about to answer.
type answering struct {
	since time.Time
	open  bool // no response went out since
}

// response is the last one to a peer, and to what it was.
type response struct {
	n      int
	way    way // by which the initiation came
	at     time.Time
	to     uint32 // sender index of the initiation
	copies int
	msg    [sizeResponse]byte
}

// await notes an initiation that is about to be sent, and reports whether it may
// go now. One that crosses our own answer to the peer may not: both sides would
// forget their initiation before the answer to it comes, and neither had a
// session for five seconds. It goes later, unless the answer was all it took.
func (p *peer) await(msg []byte, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &p.pending
	*d = pending{first: now, due: now}
	d.n = copy(d.msg[:], msg)
	if p.answering.holds(now) {
		d.due = p.answering.since.Add(answerFor)
		return false
	}
	d.wentOut(now)
	return true
}

func (d *pending) wentOut(now time.Time) {
	d.due = now.Add(resendAfter << d.sent)
	d.sent++
}

func (a *answering) holds(now time.Time) bool { return a.open && now.Sub(a.since) < answerFor }

// answered ends the wait for an answer to the initiation of session index i.
func (p *peer) answered(i uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending.n > 0 && index(p.pending.msg[:], offSender) == i {
		p.pending.n = 0
	}
}

// answers notes the response to the peer's own initiation. It ends the wait for
// an answer to ours: wireguard-go forgets that one now, and could not use it.
func (p *peer) answers(msg []byte, w *way, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending.n = 0
	p.answering.open = false
	r := &p.response
	*r = response{way: *w, at: now, to: index(msg, offReceiverResponse)}
	r.n = copy(r.msg[:], msg)
}

// again returns the response once more for a copy of the initiation that it
// answers: it seems to be lost, and wireguard-go takes the copy for a replay.
// The copy must come the same way: whoever saw the initiation may replay it from
// elsewhere, and gets nothing. He may forge the address, so there are few.
func (p *peer) again(initiation []byte, w *way, now time.Time) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.response
	if r.n == 0 || !r.way.same(w) || r.to != index(initiation, offSender) || now.Sub(r.at) > replyFor || r.copies >= maxResends+1 {
		return nil
	}
	r.copies++
	return append([]byte(nil), r.msg[:r.n]...)
}

// yields reports whether an initiation of the peer that comes now is to be
// ignored because it crossed ours: the lower key goes first. It gives way when it
// should have had an answer: then nothing of ours seems to arrive.
//
// One that does not yield will be answered in a moment, and ours is held back
// until then. Forged ones may delay ours, not stop it.
func (p *peer) yields(self key.Public, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &p.pending
	if self.Less(p.key) && d.n > 0 && d.sent > 0 && now.Sub(d.first) < crossFor {
		return true
	}
	if a := &p.answering; now.Sub(a.since) >= 2*answerFor {
		*a = answering{since: now, open: true}
	}
	return false
}

// crossed returns a copy of the initiation that one of the peer crossed, once for
// each. Ours may not have arrived: the first that goes over a relay can be there
// before its label is known.
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

// overdue returns a copy of the initiation when it is time to send it again, and
// there is a path. waits reports whether that can still happen later.
func (p *peer) overdue(now time.Time, path bool) (msg []byte, waits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &p.pending
	if d.n > 0 && (d.sent > maxResends || now.Sub(d.first) >= replyFor) {
		d.n = 0
	}
	if d.n == 0 {
		return nil, false
	}
	if !path || now.Before(d.due) || p.answering.holds(now) {
		return nil, true
	}
	d.wentOut(now)
	return append([]byte(nil), d.msg[:d.n]...), true
}

// unanswered are the peers whose initiation waits for an answer.
type unanswered struct {
	mu    sync.Mutex
	peers map[*peer]bool
	bell  chan struct{} // one was added; capacity 1
}

func newUnanswered() unanswered {
	return unanswered{peers: make(map[*peer]bool), bell: make(chan struct{}, 1)}
}

func (u *unanswered) add(p *peer) {
	u.mu.Lock()
	u.peers[p] = true
	u.mu.Unlock()
	select {
	case u.bell <- struct{}{}:
	default:
	}
}

// initiate sends an initiation over a path, now or a little later.
func (b *bind) initiate(p *peer, msg []byte, w *way) {
	if p.await(msg, time.Now()) {
		b.write([][]byte{msg}, w)
	}
	b.unanswered.add(p)
}

// resendLoop sends unanswered initiations again until ctx ends.
func (b *bind) resendLoop(ctx context.Context) {
	tick := time.NewTicker(resendTick)
	defer tick.Stop()
	for {
		tick.Stop()
		select {
		case <-ctx.Done():
			return
		case <-b.unanswered.bell:
		}
		tick.Reset(resendTick)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				waiting = b.resend(now)
			}
		}
	}
}

// resend sends what is due, and reports whether something waits.
func (b *bind) resend(now time.Time) (waiting bool) {
	u := &b.unanswered
	u.mu.Lock()
	defer u.mu.Unlock()
	for p := range u.peers {
		w := p.path.Load()
		msg, waits := p.overdue(now, w != nil && w.ready())
		if msg != nil {
			b.write([][]byte{msg}, &w.way)
		}
		if !waits {
			delete(u.peers, p)
		}
	}
	return len(u.peers) > 0
}

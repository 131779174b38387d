package hello

import (
	"context"
	"math/rand/v2"
	"time"

	"corax/dataplane/key"
)

// send is the sending half of Run. It also lets old state expire.
func (e *Exchange) send(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.kick:
		case <-timer.C:
		}
		next := e.work(ctx)
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(next.Sub(e.cfg.Now()), 0))
		}
	}
}

// work does what is due, and returns when something is due again; zero: when
// kicked.
func (e *Exchange) work(ctx context.Context) time.Time {
	for ctx.Err() == nil {
		now := e.cfg.Now()
		e.mu.Lock()
		p := e.queue.head()
		if p == nil || p.wake.After(now) {
			var next time.Time
			if p != nil {
				next = p.wake
			}
			e.mu.Unlock()
			return next
		}
		k := p.key
		active := p.active
		e.mu.Unlock()

		reachable := active
		if e.cfg.Reachable != nil {
			reachable = e.cfg.Reachable(k)
		}
		e.serve(k, now, reachable)
	}
	return time.Time{}
}

// serve sends what is due to k, and drops what k has not said for too long.
func (e *Exchange) serve(k key.Public, now time.Time, reachable bool) {
	e.mu.Lock()
	p, ok := e.peers[k]
	if !ok {
		e.mu.Unlock()
		return
	}
	gone := e.expireLocked(p, now)
	messages := e.dueLocked(p, now, reachable)
	e.scheduleLocked(p)
	e.mu.Unlock()

	for _, b := range messages {
		if _, err := e.cfg.Conn.WriteTo(b, p.addr); err != nil {
			e.counters.sendFailed.Add(1)
			continue
		}
		e.counters.sent.Add(1)
	}
	for _, t := range gone {
		e.counters.expired.Add(1)
		e.cfg.Update(k, t)
	}
}

// dueLocked returns the messages that p shall get now, and moves on what they
// are made of.
func (e *Exchange) dueLocked(p *peer, now time.Time, reachable bool) [][]byte {
	if p.active && !p.beat.After(now) {
		// Early, never late: three heartbeats must fit into the lifetime.
		p.beat = now.Add(Heartbeat - rand.N(jitter))
		for i := range p.out {
			if s := &p.out[i]; s.value != nil && s.due.IsZero() {
				s.due = now
			}
		}
	}
	var out [][]byte
	for i := range p.out {
		s := &p.out[i]
		if s.due.IsZero() || s.due.After(now) {
			continue
		}
		if !reachable { // said by Resend, or the next heartbeat
			s.due = time.Time{}
			continue
		}
		parts := (len(s.value) + maxPiece - 1) / maxPiece
		// A value goes out whole or not at all: half of one helps nobody.
		if !p.outLim.AllowN(now, parts) {
			missing := float64(parts) - p.outLim.TokensAt(now)
			s.due = now.Add(time.Duration(missing/outRate*float64(time.Second)) + time.Millisecond)
			e.counters.held.Add(1)
			continue
		}
		messages, err := e.codec.split(e.instance, Topic(i), s.sequence, s.value)
		s.said++
		s.due = time.Time{}
		if wait, again := repeats(s.said); again {
			s.due = now.Add(wait)
		}
		if err != nil { // unreachable: the setters checked the size
			e.counters.sendFailed.Add(1)
			continue
		}
		out = append(out, messages...)
	}
	return out
}

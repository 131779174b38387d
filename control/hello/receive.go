package hello

import (
	"context"
	"errors"
	"net"
	"time"

	"corax/dataplane/key"
)

// receive is the receiving half of Run.
func (e *Exchange) receive(ctx context.Context) error {
	buf := make([]byte, MaxMessage+1) // one more, to see what is too big
	for {
		n, from, err := e.cfg.Conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			e.counters.readFailed.Add(1)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		e.datagram(buf[:n], from)
	}
}

// datagram takes one datagram and tells who cares.
func (e *Exchange) datagram(b []byte, from net.Addr) {
	k, ok := e.peerOf(from)
	if !ok {
		e.counters.stranger.Add(1)
		return
	}
	for _, t := range e.take(k, b) {
		e.cfg.Update(k, t)
	}
}

func (e *Exchange) peerOf(from net.Addr) (key.Public, bool) {
	u, ok := from.(*net.UDPAddr)
	if !ok {
		return key.Public{}, false
	}
	// Only the agent has this port of its overlay address.
	a := u.AddrPort()
	if a.Port() != Port || a.Addr().Zone() != "" {
		return key.Public{}, false
	}
	k, ok := e.cfg.PeerOf(a.Addr())
	return k, ok && k != e.cfg.Self && !k.IsZero()
}

// take takes one datagram from k and returns the topics to tell of.
func (e *Exchange) take(k key.Public, b []byte) []Topic {
	now := e.cfg.Now()
	if !e.admit(k, now) {
		e.counters.limited.Add(1)
		return nil
	}
	m, unknown, err := e.codec.parse(b)
	if unknown {
		e.counters.unknownField.Add(1)
	}
	switch {
	case errors.Is(err, errTopic):
		e.counters.unknownTopic.Add(1)
		return nil
	case errors.Is(err, errSize):
		e.counters.tooBig.Add(1)
		return nil
	case err != nil:
		e.counters.malformed.Add(1)
		return nil
	}
	tell, whole := e.message(k, m, now)
	if whole != nil && e.store(k, m, whole, now) {
		tell = appendTopic(tell, Topic(m.Topic))
	}
	return tell
}

func appendTopic(ts []Topic, t Topic) []Topic {
	for _, have := range ts {
		if have == t {
			return ts
		}
	}
	return append(ts, t)
}

// admit applies the rate limit of k.
func (e *Exchange) admit(k key.Public, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peerLocked(k).inLim.AllowN(now, 1)
}

// message finds out what m means: topics to tell of, and a whole value that is
// new.
func (e *Exchange) message(k key.Public, m message, now time.Time) (tell []Topic, whole []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peerLocked(k)
	tell, ok := e.restartLocked(p, m.Instance)
	if !ok {
		e.counters.stale.Add(1)
		return nil, nil
	}
	h := &p.in.topics[m.Topic]
	switch {
	case m.Sequence < h.sequence:
		e.counters.stale.Add(1)
		return tell, nil
	case m.Sequence == h.sequence: // any part of it: it is still what k says
		e.counters.received.Add(1)
		p.in.at, h.at = now, now
		if now.Sub(h.notified) >= notify {
			h.notified = now
			tell = append(tell, Topic(m.Topic))
		}
		return tell, nil
	}
	e.counters.received.Add(1)
	p.in.at = now
	whole = e.assembleLocked(h, m, now)
	e.scheduleLocked(p)
	return tell, whole
}

// store decodes a value and keeps it, unless a later one came meanwhile.
func (e *Exchange) store(k key.Public, m message, whole []byte, now time.Time) bool {
	n := &names{resolve: e.named}
	v, err := e.codec.decode(Topic(m.Topic), whole, n)
	if err != nil {
		e.counters.malformed.Add(1)
		return false
	}
	e.counters.unknownName.Add(uint64(n.unknown))
	e.counters.refused.Add(uint64(n.refused))
	if v.unknown {
		e.counters.unknownField.Add(1)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.peers[k]
	if !ok || p.in.instance != m.Instance || p.in.topics[m.Topic].sequence >= m.Sequence {
		return false // forgotten meanwhile
	}
	h := &p.in.topics[m.Topic]
	h.sequence, h.v, h.at, h.notified, h.raw = m.Sequence, v.v, now, now, nil
	if n.unknown > 0 {
		h.raw = whole
	}
	e.scheduleLocked(p)
	return true
}

// rename decodes again what p said about peers that nobody knew.
func (e *Exchange) rename(p *peer) []Topic {
	var tell []Topic
	for t := TopicSelf; t < topicEnd; t++ {
		e.mu.Lock()
		raw, sequence := p.in.topics[t].raw, p.in.topics[t].sequence
		e.mu.Unlock()
		if raw == nil {
			continue
		}
		n := &names{resolve: e.named}
		v, err := e.codec.decode(t, raw, n)
		if err != nil {
			continue // unreachable: it was decoded before
		}
		e.mu.Lock()
		if h := &p.in.topics[t]; h.sequence == sequence && h.raw != nil {
			h.v = v.v
			if n.unknown == 0 {
				h.raw = nil
			}
			tell = append(tell, t)
		}
		e.mu.Unlock()
	}
	return tell
}

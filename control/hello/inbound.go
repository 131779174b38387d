package hello

import (
	"slices"
	"time"
)

const (
	// assembly is how long parts wait for the others: the sender says the same
	// again with the next heartbeat.
	assemblyTime = Heartbeat + 10*time.Second
	// maxAssembled bounds the waiting parts of all peers, in bytes.
	maxAssembled = 8 << 20
	// maxRetired is the number of earlier instances that are remembered, so that
	// a late message of one of them does not look like another restart.
	maxRetired = 8
	// notify is the least time between two Updates for the same value.
	notify = time.Second
)

// inbound is what a peer says.
type inbound struct {
	instance uint64 // zero: never heard
	retired  []uint64
	at       time.Time // of the last message that counted
	topics   [topicEnd]hearing
}

// hearing is what a peer says on one topic.
type hearing struct {
	sequence uint64 // of v; zero: none
	v        any    // pointer to the topic's type; nil: none
	at       time.Time
	notified time.Time
	raw      []byte // of v, when it names somebody unknown
	parts    *parts // of a later sequence
}

// parts are the pieces of a value that is not whole yet.
type parts struct {
	sequence uint64
	pieces   [][]byte
	have     int
	bytes    int
	until    time.Time
}

// expiry returns when the first of it is too old; zero when there is nothing.
func (in *inbound) expiry() time.Time {
	var t time.Time
	for i := range in.topics {
		h := &in.topics[i]
		if h.v != nil {
			t = earlier(t, h.at.Add(Lifetime))
		}
		if h.parts != nil {
			t = earlier(t, h.parts.until)
		}
	}
	return t
}

// heard returns what is not too old.
func (p *peer) heard(now time.Time) Heard {
	h := Heard{At: p.in.at}
	for i := range p.in.topics {
		t := &p.in.topics[i]
		if now.Sub(t.at) >= Lifetime {
			continue
		}
		switch v := t.v.(type) {
		case *Self:
			h.Self = v
		case *Candidates:
			h.Candidates = v
		case *Relay:
			h.Relay = v
		case *Costs:
			h.Costs = v
		case *Claims:
			h.Claims = v
		}
	}
	return h
}

// unnamed reports whether p named somebody whom nobody knew.
func (p *peer) unnamed() bool {
	return slices.ContainsFunc(p.in.topics[:], func(h hearing) bool { return h.raw != nil })
}

// expireLocked drops what is too old and returns the topics that are gone.
func (e *Exchange) expireLocked(p *peer, now time.Time) []Topic {
	var gone []Topic
	for i := range p.in.topics {
		h := &p.in.topics[i]
		if h.parts != nil && !now.Before(h.parts.until) {
			e.counters.incomplete.Add(1)
			e.abandonLocked(h)
		}
		if h.v != nil && now.Sub(h.at) >= Lifetime {
			// The sequence goes too: the same one may be said again.
			*h = hearing{parts: h.parts}
			gone = append(gone, Topic(i))
		}
	}
	return gone
}

// abandonLocked drops the parts of h.
func (e *Exchange) abandonLocked(h *hearing) {
	if h.parts != nil {
		e.assembled -= h.parts.bytes
		h.parts = nil
	}
}

// dropLocked drops everything that p said, and returns the topics.
func (e *Exchange) dropLocked(p *peer) []Topic {
	var gone []Topic
	for i := range p.in.topics {
		h := &p.in.topics[i]
		e.abandonLocked(h)
		if h.v != nil {
			gone = append(gone, Topic(i))
		}
		*h = hearing{}
	}
	return gone
}

// restartLocked makes instance the one that counts. It returns false when that
// is one of those before.
func (e *Exchange) restartLocked(p *peer, instance uint64) (gone []Topic, ok bool) {
	in := &p.in
	switch {
	case in.instance == instance:
		return nil, true
	case slices.Contains(in.retired, instance):
		return nil, false
	case in.instance != 0:
		if len(in.retired) == maxRetired {
			in.retired = slices.Delete(in.retired, 0, 1)
		}
		in.retired = append(in.retired, in.instance)
		gone = e.dropLocked(p)
		e.counters.restarts.Add(1)
		e.log.Debug("peer restarted", "peer", p.key)
	}
	in.instance = instance
	return gone, true
}

// assembleLocked adds a piece, and returns the whole value when it was the last
// one that was missing.
func (e *Exchange) assembleLocked(h *hearing, m message, now time.Time) []byte {
	if m.Parts == 1 {
		return m.Piece
	}
	if h.parts == nil || h.parts.sequence < m.Sequence {
		e.abandonLocked(h)
		h.parts = &parts{
			sequence: m.Sequence,
			pieces:   make([][]byte, m.Parts),
			until:    now.Add(assemblyTime),
		}
	}
	w := h.parts
	switch {
	case w.sequence != m.Sequence:
		e.counters.stale.Add(1)
		return nil
	case len(w.pieces) != int(m.Parts):
		e.counters.malformed.Add(1)
		return nil
	case w.pieces[m.Part] != nil: // said again
		return nil
	case e.assembled+len(m.Piece) > maxAssembled:
		e.counters.assemblyFull.Add(1)
		return nil
	}
	w.pieces[m.Part] = m.Piece
	w.have++
	w.bytes += len(m.Piece)
	e.assembled += len(m.Piece)
	if w.have < len(w.pieces) {
		return nil
	}
	whole := slices.Concat(w.pieces...)
	e.abandonLocked(h)
	return whole
}

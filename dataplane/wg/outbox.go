package wg

import (
	"corax/dataplane/internal/udpbatch"
)

// outbox holds the frames of one batch that are relayed, by the path on which
// they leave, so that those of many pairs for one hub leave together. It only
// points to them. The zero value is ready.
type outbox struct {
	hops []hop // the first n are in use
	n    int
	last int // hop of the last frame
}

// hop is what leaves over one path.
type hop struct {
	path  *path
	msgs  []udpbatch.Message
	raw   [][]byte     // the same, for a stream
	pairs []*relayPair // whose frame each is
}

func (o *outbox) add(w *path, p *relayPair, frame []byte) {
	h := o.hop(w)
	if w.stream != nil {
		h.raw = append(h.raw, frame)
	} else {
		h.msgs = append(h.msgs, udpbatch.Message{To: w.to, Local: w.local, Payload: frame})
	}
	h.pairs = append(h.pairs, p)
}

func (o *outbox) hop(w *path) *hop {
	if o.last < o.n && o.hops[o.last].path == w {
		return &o.hops[o.last]
	}
	for i := range o.n {
		if o.hops[i].path == w {
			o.last = i
			return &o.hops[i]
		}
	}
	if o.n == len(o.hops) {
		o.hops = append(o.hops, hop{})
	}
	o.last = o.n
	o.n++
	h := &o.hops[o.last]
	h.path = w
	return h
}

// flush sends what was relayed in this batch. It does not wait for room: what
// does not go at once is dropped.
func (r *reader) flush() {
	r.line.fresh = false
	o := &r.out
	if o.n == 0 {
		return
	}
	r.b.fair.tick(r.now)
	for i := range o.n {
		h := &o.hops[i]
		sent := h.send(r.b)
		if sent < len(h.pairs) {
			r.b.fair.lost(r.now)
			r.b.drops.add(dropRelayFull, len(h.pairs)-sent)
		}
		h.count(sent)
		h.clear()
	}
	o.n, o.last = 0, 0
}

// send returns how many frames, from the first on, were not refused for want of
// room.
func (h *hop) send(b *bind) int {
	if s := h.path.stream; s != nil {
		return s.Send(h.raw)
	}
	c := b.conn(&h.path.way)
	if c == nil {
		b.drops.add(b.noSocket(&h.path.way), len(h.msgs))
		return 0
	}
	_, refused := c.TryWrite(h.msgs)
	return len(h.msgs) - refused
}

// count adds the frames to the counters of their pairs, run by run.
func (h *hop) count(sent int) {
	for i := 0; i < len(h.pairs); {
		p := h.pairs[i]
		var packets, bytes, drops uint64
		for ; i < len(h.pairs) && h.pairs[i] == p; i++ {
			if i >= sent {
				drops++
				continue
			}
			packets++
			if h.path.stream != nil {
				bytes += uint64(len(h.raw[i]))
			} else {
				bytes += uint64(len(h.msgs[i].Payload))
			}
		}
		p.packets.Add(packets)
		p.bytes.Add(bytes)
		if drops > 0 {
			p.drops.Add(drops)
		}
	}
}

// clear keeps the memory, and nothing that it pointed to.
func (h *hop) clear() {
	clear(h.msgs)
	clear(h.raw)
	clear(h.pairs)
	h.path, h.msgs, h.raw, h.pairs = nil, h.msgs[:0], h.raw[:0], h.pairs[:0]
}

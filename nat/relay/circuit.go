package relay

import (
	"time"

	"corax/dataplane/key"
)

// circuitKey names a circuit: near is a neighbour; so is far unless there is a
// via, the hub behind which far is. Without via, near is the lower key.
type circuitKey struct{ near, far, via key.Public }

// circuit is one pair that we relay for.
type circuit struct {
	circuitKey
	nearIn uint64 // the label we gave near, for both directions of that link
	farIn  uint64 // the label we gave far or via; for far, for both directions
	out    uint64 // the label that via gave us; zero: not yet

	nearUntil, farUntil time.Time // when what either side asked for lapses

	asking bool   // near's last message asks for it, so we ask via
	round  uint64 // of the message that asked last

	outCost           time.Duration // what via said of its cost to far
	nearCost, farCost uint32        // as told to near, and to far or via, in µs
}

// onward is the neighbour on the other side of near.
func (c *circuit) onward() key.Public {
	if c.via.IsZero() {
		return c.far
	}
	return c.via
}

func (c *circuit) complete() bool { return c.via.IsZero() || c.out != 0 }

// farOut is the label of frames from near.
func (c *circuit) farOut() uint64 {
	if c.via.IsZero() {
		return c.farIn
	}
	return c.out
}

// keyFor returns the key of the circuit of an asking neighbour.
func keyFor(asking, peer, via key.Public) circuitKey {
	if via.IsZero() && peer.Less(asking) {
		asking, peer = peer, asking
	}
	return circuitKey{asking, peer, via}
}

// touch keeps a circuit until a time on behalf of who asked: a neighbour, or
// the hub via. It is made when there is none.
func (b *Book) touch(k circuitKey, asking key.Public, until time.Time) {
	c, ok := b.circuits[k]
	if !ok {
		if c = b.open(k); c == nil {
			return
		}
	}
	if asking == c.near {
		b.ask(c, true)
		c.nearUntil = until
		c.round = b.round
	} else {
		c.farUntil = until
	}
	b.lapse(until)
}

// ask says whether we ask via for c. Ending that with the wish, not with its
// lapse, lets both hubs forget c at about the same time.
func (b *Book) ask(c *circuit, on bool) {
	if c.asking != on && !c.via.IsZero() {
		c.asking = on
		b.changed[c.via] = true
	}
}

func (b *Book) open(k circuitKey) *circuit {
	c := &circuit{circuitKey: k}
	if len(b.circuits) >= MaxCircuits || len(b.at[c.near]) >= MaxLabels || len(b.at[c.onward()]) >= MaxLabels {
		b.counters[tooMany]++
		return nil
	}
	c.nearIn = b.label(c)
	c.farIn = b.label(c)
	if t := b.told[k.via]; t != nil {
		l := t.out[[2]key.Public{c.far, c.near}]
		c.out, c.outCost = l.Label, time.Duration(l.CostMicros)*time.Microsecond
	}
	b.circuits[k] = c
	for _, n := range []key.Public{c.near, c.onward()} {
		if b.at[n] == nil {
			b.at[n] = make(map[*circuit]bool)
		}
		b.at[n][c] = true
	}
	b.price(c)
	b.mark(c)
	return c
}

// label draws a label that is not in use.
func (b *Book) label(c *circuit) uint64 {
	for {
		l := b.rand() & (1<<56 - 1)
		if _, taken := b.terminal[l]; l == 0 || taken || b.own[l] != nil {
			continue
		}
		b.own[l] = c
		return l
	}
}

func (b *Book) remove(c *circuit) {
	delete(b.circuits, c.circuitKey)
	delete(b.own, c.nearIn)
	delete(b.own, c.farIn)
	for _, n := range []key.Public{c.near, c.onward()} {
		delete(b.at[n], c)
		if len(b.at[n]) == 0 {
			delete(b.at, n)
		}
	}
	b.mark(c)
}

// mark notes that both neighbours must hear of c.
func (b *Book) mark(c *circuit) {
	b.changed[c.near] = true
	b.changed[c.onward()] = true
	b.dirty()
}

// expire ends c, or what one side of it asked for.
func (b *Book) expire(now time.Time, c *circuit) {
	if !c.nearUntil.IsZero() && !now.Before(c.nearUntil) {
		c.nearUntil = time.Time{}
		b.ask(c, false)
	}
	if !c.farUntil.IsZero() && !now.Before(c.farUntil) {
		c.farUntil = time.Time{}
	}
	if c.nearUntil.IsZero() && c.farUntil.IsZero() {
		b.remove(c)
		return
	}
	for _, t := range []time.Time{c.nearUntil, c.farUntil} {
		if !t.IsZero() {
			b.lapse(t)
		}
	}
}

// price sets what the neighbours are told of the cost. Small changes are not
// worth a message.
func (b *Book) price(c *circuit) {
	toFar := b.sessions[c.onward()].Cost + c.outCost
	toNear := b.sessions[c.near].Cost
	if moved(c.nearCost, micros(toFar)) {
		c.nearCost = micros(toFar)
		b.changed[c.near] = true
	}
	if moved(c.farCost, micros(toNear)) {
		c.farCost = micros(toNear)
		b.changed[c.onward()] = true
	}
}

// moved reports whether a cost differs by more than a fifth and 2 ms.
func moved(old, now uint32) bool {
	d := max(old, now) - min(old, now)
	return d > old/5 && d > 2000 || old == 0 && now > 0
}

// all returns the circuits, of returns those of a neighbour; both as a copy, so
// that they can be removed meanwhile.
func (b *Book) all() []*circuit {
	out := make([]*circuit, 0, len(b.circuits))
	for _, c := range b.circuits {
		out = append(out, c)
	}
	return out
}

func (b *Book) of(k key.Public) []*circuit {
	out := make([]*circuit, 0, len(b.at[k]))
	for c := range b.at[k] {
		out = append(out, c)
	}
	return out
}

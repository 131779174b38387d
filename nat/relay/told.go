package relay

import (
	"cmp"
	"slices"
	"time"

	"corax/dataplane/key"
)

// told is what a hub told us.
type told struct {
	until time.Time
	ours  map[uint64]Label        // for our own traffic
	out   map[[2]key.Public]Label // peer, origin: for frames that we relay
}

// terminal is a label for us.
type terminal struct{ hub, peer key.Public }

// Told takes the labels that a hub gave us, all of them, as its last message
// said: call it for repetitions too, and with none when the message is too old.
func (b *Book) Told(now time.Time, hub key.Public, labels []Label) {
	if s, ok := b.sessions[hub]; !ok || !s.Hub {
		b.counters[notHub] += uint64(len(labels))
		b.forget(hub)
		return
	}
	if len(labels) > MaxLabels {
		b.counters[tooMany] += uint64(len(labels) - MaxLabels)
		labels = labels[:MaxLabels]
	}
	t := &told{
		until: now.Add(Lapse),
		ours:  make(map[uint64]Label),
		out:   make(map[[2]key.Public]Label),
	}
	for _, l := range labels {
		switch {
		case !b.sane(hub, l):
			b.counters[badLabel]++
		case !l.Origin.IsZero():
			t.out[[2]key.Public{l.Peer, l.Origin}] = l
		default:
			l.Via = slices.Clone(l.Via)
			t.ours[l.Label] = l
		}
	}
	b.told[hub] = t
	b.lapse(t.until)
	b.retell()
	for _, c := range b.of(hub) {
		if c.via == hub {
			b.output(c, t.out[[2]key.Public{c.far, c.near}])
		}
	}
}

func (b *Book) sane(hub key.Public, l Label) bool {
	if l.Label == 0 || l.Label >= 1<<56 || l.Peer.IsZero() || l.Peer == b.self ||
		l.Peer == hub || l.Origin == b.self || l.Origin == l.Peer || len(l.Via) > maxVia {
		return false
	}
	return !slices.Contains(l.Via, b.self) && !slices.Contains(l.Via, hub) && !slices.Contains(l.Via, l.Peer)
}

// output takes the label that the next hub gave for c; the zero Label takes it
// away.
func (b *Book) output(c *circuit, l Label) {
	if l.Label != c.out {
		c.out = l.Label
		b.mark(c)
	}
	c.outCost = time.Duration(l.CostMicros) * time.Microsecond
	b.price(c)
	if c.out == 0 && c.nearUntil.IsZero() {
		b.remove(c) // the hub had asked, and has ended it
	}
}

// forget drops what hub told us.
func (b *Book) forget(hub key.Public) {
	if b.told[hub] == nil {
		return
	}
	delete(b.told, hub)
	b.retell()
	for _, c := range b.of(hub) {
		if c.via == hub {
			b.output(c, Label{})
		}
	}
}

// retell makes the labels for us anew from what was told. A label that is taken
// stays with who has it: another hub cannot take it over.
func (b *Book) retell() {
	for label, t := range b.terminal {
		h := b.told[t.hub]
		if h == nil || h.ours[label].Peer != t.peer || !b.either(b.self, t.peer) {
			delete(b.terminal, label)
			b.dirty()
		}
	}
	for _, hub := range b.hubs() {
		for label, l := range b.told[hub].ours {
			if !b.either(b.self, l.Peer) {
				continue
			}
			has, taken := b.terminal[label]
			switch {
			case taken && has.hub == hub:
			case taken || b.own[label] != nil:
				b.counters[collision]++
			default:
				b.terminal[label] = terminal{hub, l.Peer}
				b.dirty()
			}
		}
	}
}

func (b *Book) hubs() []key.Public {
	out := make([]key.Public, 0, len(b.told))
	for k := range b.told {
		out = append(out, k)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

// Relays returns the ways to peer that we were given, cheapest first. Their Via
// must not be changed.
func (b *Book) Relays(peer key.Public) []Relay {
	var out []Relay
	for hub, t := range b.told {
		for label, l := range t.ours {
			if b.terminal[label] == (terminal{hub, peer}) {
				cost := b.sessions[hub].Cost + time.Duration(l.CostMicros)*time.Microsecond
				out = append(out, Relay{hub, label, l.Via, cost})
			}
		}
	}
	slices.SortFunc(out, func(x, y Relay) int {
		return cmp.Or(cmp.Compare(x.Cost, y.Cost), cmp.Compare(len(x.Via), len(y.Via)),
			compareKeys(x.Hub, y.Hub), cmp.Compare(x.Label, y.Label))
	})
	return out
}

// Tell returns what to say to k: what we want from it, and the labels that we
// give it. Both are in a fixed order, so an equal state is said equally. While
// there is something to say it must be said again every 25 s.
func (b *Book) Tell(k key.Public) ([]Want, []Label) {
	var wants []Want
	var labels []Label
	for peer, asks := range b.asked {
		for _, a := range asks {
			if a.Hub == k {
				wants = append(wants, Want{Peer: peer, Next: a.Next})
			}
		}
	}
	for c := range b.at[k] {
		if c.via == k && !c.nearUntil.IsZero() {
			wants = append(wants, Want{Peer: c.far, Origin: c.near})
		}
		if l, ok := c.tell(k); ok {
			labels = append(labels, l)
		}
	}
	slices.SortFunc(wants, func(x, y Want) int {
		return cmp.Or(compareKeys(x.Peer, y.Peer), compareKeys(x.Origin, y.Origin), compareKeys(x.Next, y.Next))
	})
	slices.SortFunc(labels, func(x, y Label) int { return cmp.Compare(x.Label, y.Label) })
	return wants[:min(len(wants), MaxWanted)], labels
}

// tell returns the label for the neighbour k.
func (c *circuit) tell(k key.Public) (Label, bool) {
	switch {
	case k == c.near:
		l := Label{Peer: c.far, Label: c.nearIn, CostMicros: c.nearCost}
		if !c.via.IsZero() {
			l.Via = []key.Public{c.via}
		}
		return l, c.complete()
	case c.via.IsZero():
		return Label{Peer: c.near, Label: c.farIn, CostMicros: c.farCost}, true
	}
	return Label{Peer: c.near, Label: c.farIn, CostMicros: c.farCost, Origin: c.far}, true
}

package relay

import (
	"cmp"
	"maps"
	"slices"
	"sort"
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
// They count while there is a session with that hub.
func (b *Book) Told(now time.Time, hub key.Public, labels []Label) {
	if s, ok := b.sessions[hub]; ok && !s.Hub || b.told[hub] == nil && len(b.told) >= maxHubs {
		b.counters[notHub] += uint64(len(labels))
		b.forget(hub)
		return
	}
	if len(labels) > MaxLabels {
		b.counters[tooMany] += uint64(len(labels) - MaxLabels)
		labels = labels[:MaxLabels]
	}
	if len(labels) == 0 {
		b.forget(hub)
		return
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
	b.counters[collision] += b.retell()
	b.outputs(hub)
}

// outputs gives the circuits via hub the labels that it told.
func (b *Book) outputs(hub key.Public) {
	t := b.told[hub]
	for _, c := range b.of(hub) {
		switch {
		case c.via != hub:
		case t == nil:
			b.output(c, Label{})
		default:
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
	b.outputs(hub)
}

// retell makes the labels for us anew from what was told, and returns how many
// are taken: a label stays with who has it, another hub cannot take it over.
func (b *Book) retell() (collisions uint64) {
	b.relays = nil
	for label, t := range b.terminal {
		h := b.told[t.hub]
		if h == nil || h.ours[label].Peer != t.peer || !b.usable(t) {
			delete(b.terminal, label)
			b.dirty()
		}
	}
	for _, hub := range sorted(b.told) {
		for label, l := range b.told[hub].ours {
			t := terminal{hub, l.Peer}
			if !b.usable(t) {
				continue
			}
			has, taken := b.terminal[label]
			switch {
			case taken && has.hub == hub:
			case taken || b.own[label] != nil:
				collisions++
			default:
				b.terminal[label] = t
				b.dirty()
			}
		}
	}
	return collisions
}

func (b *Book) usable(t terminal) bool { return b.sessions[t.hub].Hub && b.either(b.self, t.peer) }

func sorted[V any](m map[key.Public]V) []key.Public {
	keys := slices.Collect(maps.Keys(m))
	sort.Slice(keys, func(i, j int) bool { return compareKeys(keys[i], keys[j]) < 0 })
	return keys
}

// Relays returns the ways to peer that we were given, cheapest first. They must
// not be changed.
func (b *Book) Relays(peer key.Public) []Relay {
	if b.relays == nil {
		b.relays = make(map[key.Public][]Relay)
		for label, t := range b.terminal {
			l := b.told[t.hub].ours[label]
			cost := b.sessions[t.hub].Cost + time.Duration(l.CostMicros)*time.Microsecond
			b.relays[t.peer] = append(b.relays[t.peer], Relay{t.hub, label, l.Via, cost})
		}
		for _, list := range b.relays {
			sort.Slice(list, func(i, j int) bool { return list[i].compare(list[j]) < 0 })
		}
	}
	return b.relays[peer]
}

func (r Relay) compare(o Relay) int {
	return cmp.Or(cmp.Compare(r.Cost, o.Cost), cmp.Compare(len(r.Via), len(o.Via)),
		compareKeys(r.Hub, o.Hub), cmp.Compare(r.Label, o.Label))
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
		if c.via == k && c.asking {
			wants = append(wants, Want{Peer: c.far, Origin: c.near})
		}
		if l, ok := c.tell(k); ok {
			labels = append(labels, l)
		}
	}
	sort.Slice(wants, func(i, j int) bool {
		x, y := &wants[i], &wants[j]
		return cmp.Or(compareKeys(x.Peer, y.Peer), compareKeys(x.Origin, y.Origin), compareKeys(x.Next, y.Next)) < 0
	})
	sort.Slice(labels, func(i, j int) bool { return labels[i].Label < labels[j].Label })
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

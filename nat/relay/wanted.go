package relay

import (
	"cmp"
	"sort"
	"time"

	"corax/dataplane/key"
)

// asker is what a peer wants from us as a hub.
type asker struct {
	hub   bool
	until time.Time
	wants []*want
}

type want struct {
	Want
	via    key.Public // the present choice, when the choice is ours
	chosen bool
}

// Wanted takes what from wants from us, all of it, as its last message said: call
// it for repetitions too. What it no longer lists lapses in its time.
func (b *Book) Wanted(now time.Time, from key.Public, fromIsHub bool, list []Want) {
	if !b.relaying {
		b.counters[notRelaying] += uint64(len(list))
		return
	}
	if len(list) > MaxWanted {
		b.counters[tooMany] += uint64(len(list) - MaxWanted)
		list = list[:MaxWanted]
	}
	before := make(map[Want]*want)
	if a := b.askers[from]; a != nil {
		for _, w := range a.wants {
			before[w.Want] = w
		}
	}
	a := &asker{hub: fromIsHub, until: now.Add(Lapse)}
	for _, w := range list {
		if !b.valid(from, fromIsHub, w) {
			continue
		}
		x := before[w]
		if x == nil {
			x = &want{Want: w}
		}
		a.wants = append(a.wants, x)
	}
	b.round++
	if len(a.wants) == 0 {
		delete(b.askers, from)
	} else {
		b.askers[from] = a
		b.lapse(a.until)
		b.reroute(from, a)
	}
	for c := range b.at[from] {
		if c.near == from && c.round != b.round {
			b.ask(c, false)
		}
	}
}

func (b *Book) valid(from key.Public, hub bool, w Want) bool {
	origin := w.Origin
	if origin.IsZero() {
		origin = from
	}
	switch {
	case !w.Origin.IsZero() && !hub:
		b.counters[notHub]++
	case w.Peer.IsZero(), w.Peer == b.self, w.Peer == from, w.Peer == origin,
		origin == b.self, w.Next == from, w.Origin == from:
		b.counters[badWant]++
	default:
		if !b.allowed(origin, w.Peer) { // kept: our plan may be the older one
			b.counters[notAllowed]++
		}
		return true
	}
	return false
}

func (b *Book) rerouteAll(now time.Time) {
	for from, a := range b.askers {
		if now.Before(a.until) {
			b.reroute(from, a)
		}
	}
}

// reroute keeps or makes the circuits that serve what from wants.
func (b *Book) reroute(from key.Public, a *asker) {
	if _, ok := b.sessions[from]; !ok {
		return // its session is about to be known
	}
	for _, w := range a.wants {
		origin := w.Origin
		if origin.IsZero() {
			origin = from
		}
		if !b.allowed(origin, w.Peer) {
			continue
		}
		if !w.Origin.IsZero() {
			if b.reaches(w.Peer) {
				b.touch(circuitKey{near: w.Peer, far: w.Origin, via: from}, from, a.until)
			}
			continue
		}
		for _, via := range b.choose(from, a.hub, w) {
			b.touch(keyFor(from, w.Peer, via), from, a.until)
		}
	}
}

func (b *Book) reaches(k key.Public) bool {
	_, ok := b.sessions[k]
	return ok
}

// choose returns the next hubs through which a neighbour shall reach the peer;
// the zero key is our own session. It is several while none has given a label.
func (b *Book) choose(from key.Public, hub bool, w *want) []key.Public {
	direct := b.reaches(w.Peer)
	switch {
	case hub, w.Next == b.self, w.Next == w.Peer:
		// Asked by a hub: one more would be the third relay.
		if direct {
			return []key.Public{{}}
		}
		return nil
	case !w.Next.IsZero():
		if s, ok := b.sessions[w.Next]; ok && s.Hub {
			return []key.Public{w.Next}
		}
		return nil
	}
	options := b.options(from, w)
	var out []key.Public
	for i, o := range options {
		if i == maxTry {
			break
		}
		out = append(out, o.via)
		if o.ready {
			break
		}
	}
	w.chosen = false
	if n := len(out); n > 0 && options[n-1].ready {
		w.via, w.chosen = out[n-1], true
	}
	return out
}

// option is one way on to a peer.
type option struct {
	via   key.Public
	score time.Duration
	known bool // somebody said that via reaches the peer
	ready bool
}

// options returns the ways to a peer, best first. Our own session and the present
// choice count two thirds of their cost: the other must be clearly cheaper.
func (b *Book) options(from key.Public, w *want) []option {
	var out []option
	favour := func(via key.Public, cost time.Duration) time.Duration {
		if via.IsZero() || w.chosen && w.via == via {
			return cost * 2 / 3
		}
		return cost
	}
	if s, ok := b.sessions[w.Peer]; ok {
		out = append(out, option{score: favour(key.Public{}, s.Cost), known: true, ready: true})
	}
	for _, s := range b.hubs {
		k := s.Peer
		if k == w.Peer || k == from {
			continue
		}
		o := option{via: k, score: s.Cost}
		if c := b.circuits[keyFor(from, w.Peer, k)]; c != nil && c.complete() {
			o.known, o.ready = true, true
			o.score = favour(k, s.Cost+c.outCost)
		} else if l, ok := b.links[[2]key.Public{k, w.Peer}]; ok {
			o.known = true
			o.score = favour(k, s.Cost+l)
		}
		out = append(out, o)
	}
	sort.Slice(out, func(i, j int) bool {
		x, y := &out[i], &out[j]
		if x.known != y.known {
			return x.known
		}
		return cmp.Or(cmp.Compare(x.score, y.score), compareKeys(x.via, y.via)) < 0
	})
	return out
}

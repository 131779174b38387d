package relay

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"corax/dataplane/key"
)

func name(b byte) key.Public { return key.Public{b} }

// world is several books that talk to each other over perfect messages.
type world struct {
	t        *testing.T
	now      time.Time
	rng      *rand.Rand
	books    map[key.Public]*Book
	hubs     map[key.Public]bool
	sessions map[[2]key.Public]time.Duration // both directions
	silent   map[key.Public]bool
}

func newWorld(t *testing.T, seed uint64, hubs, edges []key.Public) *world {
	w := &world{
		t:        t,
		now:      time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		rng:      rand.New(rand.NewPCG(seed, 1)),
		books:    make(map[key.Public]*Book),
		hubs:     make(map[key.Public]bool),
		sessions: make(map[[2]key.Public]time.Duration),
		silent:   make(map[key.Public]bool),
	}
	for _, k := range slices.Concat(hubs, edges) {
		b, err := New(Config{Self: k, Rand: w.rng.Uint64})
		if err != nil {
			t.Fatal(err)
		}
		b.SetAllowed(w.now, func(key.Public, key.Public) bool { return true })
		w.books[k] = b
	}
	for _, k := range hubs {
		w.hubs[k] = true
		w.books[k].SetRelaying(true)
	}
	return w
}

func (w *world) session(a, b key.Public, cost time.Duration) {
	if cost == 0 {
		delete(w.sessions, [2]key.Public{a, b})
		delete(w.sessions, [2]key.Public{b, a})
	} else {
		w.sessions[[2]key.Public{a, b}] = cost
		w.sessions[[2]key.Public{b, a}] = cost
	}
	w.setSessions(a)
	w.setSessions(b)
}

func (w *world) setSessions(k key.Public) {
	var list []Session
	for ends, cost := range w.sessions {
		if ends[0] == k {
			list = append(list, Session{ends[1], w.hubs[ends[1]], cost})
		}
	}
	w.books[k].SetSessions(w.now, list)
}

// say delivers what from has to say to to, when they have a session.
func (w *world) say(from, to key.Public) {
	if _, ok := w.sessions[[2]key.Public{from, to}]; !ok || w.silent[from] {
		return
	}
	wants, labels := w.books[from].Tell(to)
	if !slices.IsSortedFunc(labels, func(x, y Label) int { return compareLabels(x, y) }) {
		w.t.Fatal("labels are not in order")
	}
	b := w.books[to]
	if w.hubs[to] || len(wants) > 0 {
		b.Wanted(w.now, from, w.hubs[from], wants)
	}
	if w.hubs[from] {
		b.Told(w.now, from, labels)
	}
}

func compareLabels(x, y Label) int {
	switch {
	case x.Label < y.Label:
		return -1
	case x.Label > y.Label:
		return 1
	}
	return 0
}

// settle says what changed until nothing does.
func (w *world) settle() {
	for range 50 {
		quiet := true
		for _, k := range sorted(w.books) {
			for _, to := range w.books[k].Changed() {
				quiet = false
				w.say(k, to)
			}
		}
		if quiet {
			return
		}
	}
	w.t.Fatal("the books never stop talking")
}

// beat says everything again.
func (w *world) beat() {
	for _, k := range sorted(w.books) {
		for _, to := range sorted(w.books) {
			if k != to {
				w.say(k, to)
			}
		}
	}
	w.settle()
}

func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for _, k := range sorted(w.books) {
		b := w.books[k]
		b.Expire(w.now)
		if next := b.Deadline(); !next.IsZero() && !next.After(w.now) {
			w.t.Fatalf("deadline %v is not after now", next)
		}
	}
	w.settle()
}

// walk sends a frame along a relay way and returns who got it as from whom, and
// the hubs on the way.
func (w *world) walk(from key.Public, r Relay) (at, origin key.Public, hubs []key.Public) {
	prev, here, label := from, r.Hub, r.Label
	for range 5 {
		if _, ok := w.sessions[[2]key.Public{prev, here}]; !ok {
			return
		}
		f, ok := w.books[here].Forwards()[label]
		if !ok || f.From != prev {
			return key.Public{}, key.Public{}, hubs
		}
		if f.Out == 0 {
			return here, f.To, hubs
		}
		hubs = append(hubs, here)
		prev, here, label = here, f.To, f.Out
	}
	w.t.Fatal("a loop")
	return
}

// check looks at the invariants that hold at every moment.
func (w *world) check() {
	w.t.Helper()
	for k, b := range w.books {
		fs := b.Forwards()
		for label, f := range fs {
			if label == 0 || label >= 1<<56 {
				w.t.Fatalf("label %x", label)
			}
			if _, ok := b.sessions[f.From]; !ok {
				w.t.Fatalf("%x forwards from %x without a session", k[0], f.From[0])
			}
			if f.Out == 0 {
				continue
			}
			if _, ok := b.sessions[f.To]; !ok || f.To == f.From {
				w.t.Fatalf("%x forwards to %x", k[0], f.To[0])
			}
			if !hasReverse(fs, label, f) {
				w.t.Fatalf("%x: %x has no reverse", k[0], label)
			}
			if !w.hubs[k] {
				w.t.Fatalf("edge %x forwards", k[0])
			}
		}
		if len(b.own) != 2*len(b.circuits) {
			w.t.Fatalf("%d labels for %d circuits", len(b.own), len(b.circuits))
		}
	}
}

// hasReverse: towards the other hub the labels differ by direction, so one of
// the two names the other.
func hasReverse(fs map[uint64]Forward, label uint64, f Forward) bool {
	if g, ok := fs[f.Out]; ok && g.From == f.To && g.To == f.From {
		return true
	}
	for _, g := range fs {
		if g.Out == label && g.From == f.To && g.To == f.From {
			return true
		}
	}
	return false
}

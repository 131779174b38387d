package relay

import (
	"fmt"
	"testing"
	"time"

	"corax/dataplane/key"
)

// pairs notes who asked for whom, and when its message last said so.
type pairs map[[2]key.Public]time.Time

func ends(a, b key.Public) [2]key.Public {
	if b.Less(a) {
		a, b = b, a
	}
	return [2]key.Public{a, b}
}

// TestRandom runs random wants, deaths and lapses, and looks at the invariants
// after every step.
func TestRandom(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			hubs := []key.Public{h1, h2, h3, h4}
			edges := []key.Public{name(1), name(2), name(3), name(4), name(5), name(6)}
			w := newWorld(t, seed, hubs, edges)
			asked := make(pairs)
			for _, a := range hubs {
				for _, b := range hubs {
					if a.Less(b) {
						w.session(a, b, w.cost())
					}
				}
			}
			for range 150 {
				w.step(hubs, edges, asked)
				w.note(asked)
				w.check()
				w.checkAsked(asked)
				w.checkWays()
			}
			// Silence: everything is gone a minute after the last message.
			for k := range w.books {
				w.silent[k] = true
			}
			w.pass(Lapse)
			for k, b := range w.books {
				if len(b.Forwards()) != 0 || len(b.circuits) != 0 || len(b.own) != 0 || len(b.at) != 0 ||
					len(b.askers) != 0 || len(b.told) != 0 || !b.Deadline().IsZero() {
					t.Fatalf("%x keeps something after the silence", k[0])
				}
			}
		})
	}
}

func (w *world) cost() time.Duration { return time.Duration(1+w.rng.IntN(100)) * ms }

func pick(w *world, ks []key.Public) key.Public { return ks[w.rng.IntN(len(ks))] }

func (w *world) step(hubs, edges []key.Public, asked pairs) {
	a, b, h := pick(w, edges), pick(w, edges), pick(w, hubs)
	switch w.rng.IntN(9) {
	case 0, 1:
		if a == b {
			return
		}
		at := []Ask{{Hub: h}}
		switch w.rng.IntN(3) {
		case 0:
			at = append(at, Ask{Hub: pick(w, hubs)})
		case 1:
			at[0].Next = pick(w, hubs)
		}
		w.books[a].Ask(b, at)
	case 2:
		w.books[a].Ask(b, nil)
	case 3, 4:
		w.session(a, h, w.cost())
	case 5:
		w.session(a, h, 0)
	case 6:
		if other := pick(w, hubs); other != h {
			w.session(h, other, w.cost()*time.Duration(w.rng.IntN(2)))
		}
	case 7: // two beats at most are lost between
		w.pass(time.Duration(1+w.rng.IntN(24)) * time.Second)
		w.beat()
	case 8:
		w.books[h].SetRelaying(w.rng.IntN(4) > 0)
	}
	w.settle()
}

// note takes down what is being asked for now.
func (w *world) note(asked pairs) {
	for k, b := range w.books {
		for peer := range b.asked {
			asked[ends(k, peer)] = w.now
		}
	}
}

// checkAsked: no label names a pair that nobody asked for lately. The last hub
// hears of the end from the one before, so it may hold its part for as long
// again; but not as a forward that leads anywhere, which checkWays sees.
func (w *world) checkAsked(asked pairs) {
	for k, b := range w.books {
		for _, c := range b.circuits {
			at, ok := asked[ends(c.near, c.far)]
			if !ok || w.now.Sub(at) > 2*Lapse+25*time.Second {
				w.t.Fatalf("%x relays %x and %x, for whom nobody asked since %v", k[0], c.near[0], c.far[0], at)
			}
		}
	}
}

// checkWays: every way that a node was given arrives at whom it names, as from
// itself, through at most two hubs; and that one can answer.
func (w *world) checkWays() {
	for from, b := range w.books {
		for to := range w.books {
			for _, r := range b.Relays(to) {
				at, origin, hubs := w.walk(from, r)
				if at != to || origin != from || len(hubs) > 2 {
					w.t.Fatalf("from %x to %x by %+v: arrives at %x as from %x through %x", from[0], to[0], r, at, origin, hubs)
				}
			}
		}
	}
}

package path

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"corax/dataplane/key"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func hub(n byte) key.Public { return key.Public{n} }

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func direct(s string) Way { return Way{Kind: Direct, To: addr(s)} }

func over(n byte) Way { return Way{Kind: Relay, Hub: hub(n), Label: uint64(n)} }

func relay(n byte, cost time.Duration) RelayWay {
	return RelayWay{Way: over(n), Via: []key.Public{hub(n)}, Cost: cost}
}

const ms = time.Millisecond

// world runs one Machine on virtual time. What it sends is answered as the
// hooks say.
type world struct {
	t     testing.TB
	m     *Machine
	now   time.Time
	queue []due
	log   []string // actions, each with its time in ms
	sends []SendProbe
	at    []time.Time // of sends
	used  Way
	mtu   int
	// rtt says when a probe is answered; negative: never.
	rtt func(p SendProbe) time.Duration
	// every is called after each Step.
	every func(ev Event, acts []Action)
	// traffic, when set, is sampled every 100 ms.
	traffic func() Traffic
	sample  time.Time
	heard   time.Time // last answer on the way in use
}

type due struct {
	at time.Time
	ev Event
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, now: epoch, mtu: BaseMTU, rtt: func(SendProbe) time.Duration { return -1 }}
	w.m = New(Config{Self: hub(200), Peer: hub(201), Rand: rand.New(rand.NewPCG(seed, 1))})
	return w
}

func (w *world) since() int { return int(w.now.Sub(epoch) / ms) }

func (w *world) do(ev Event) []Action {
	acts := slices.Clone(w.m.Step(w.now, ev))
	for _, a := range acts {
		switch a := a.(type) {
		case SendProbe:
			w.sends, w.at = append(w.sends, a), append(w.at, w.now)
			w.log = append(w.log, fmt.Sprintf("%d probe %v ttl %d size %d", w.since(), a.Way, a.TTL, a.Size))
			if d := w.rtt(a); d >= 0 {
				w.queue = append(w.queue, due{w.now.Add(d), AnswerIn{Way: a.Way, Tx: a.Tx}})
			}
		case Use:
			w.used = a.Way
			w.log = append(w.log, fmt.Sprintf("%d use %v", w.since(), a.Way))
		case SetMTU:
			w.mtu = a.MTU
			w.log = append(w.log, fmt.Sprintf("%d mtu %d", w.since(), a.MTU))
		case Announce:
			w.log = append(w.log, fmt.Sprintf("%d announce %v", w.since(), a.Call))
		default:
			w.log = append(w.log, fmt.Sprintf("%d %T%v", w.since(), a, a))
		}
	}
	if d := w.m.Deadline(); !d.IsZero() && !d.After(w.now) {
		w.t.Fatalf("at %d ms after %T: deadline %v is not in the future", w.since(), ev, d.Sub(w.now))
	}
	if w.every != nil {
		w.every(ev, acts)
	}
	return acts
}

// runTo lets time pass.
func (w *world) runTo(at time.Time) {
	for {
		var ev Event
		next := at.Add(1)
		if d := w.m.Deadline(); !d.IsZero() && d.Before(next) {
			next, ev = d, Tick{}
		}
		which := -1
		for i, q := range w.queue {
			if q.at.Before(next) {
				next, ev, which = q.at, q.ev, i
			}
		}
		if w.traffic != nil && w.sample.Before(next) {
			next, which = w.sample, -1
			if next.Before(w.now) {
				next = w.now
			}
			ev = nil
		}
		if next.After(at) {
			w.now = at
			return
		}
		if next.After(w.now) {
			w.now = next
		}
		switch {
		case ev == nil:
			w.sample = w.now.Add(100 * ms)
			ev = w.traffic()
		case which >= 0:
			w.queue = slices.Delete(w.queue, which, which+1)
		}
		if a, ok := ev.(AnswerIn); ok && a.Way == w.used {
			w.heard = w.now
		}
		w.do(ev)
	}
}

func (w *world) run(d time.Duration) { w.runTo(w.now.Add(d)) }

// clearLog forgets what was done so far.
func (w *world) clearLog() { w.log, w.sends, w.at = nil, nil, nil }

func (w *world) wantUsed(want Way) {
	w.t.Helper()
	if w.used != want {
		w.t.Fatalf("at %d ms: path is %v, want %v (why: %v)\n%v", w.since(), w.used, want, w.m.Status().Why, w.m.Status().Transitions)
	}
}

func (w *world) wantWhy(want Reason) {
	w.t.Helper()
	if got := w.m.Status().Why; got != want {
		w.t.Fatalf("at %d ms: why is %q, want %q", w.since(), got.Code(), want.Code())
	}
}

// answered answers probes on the given ways after d.
func answered(d time.Duration, ways ...Way) func(SendProbe) time.Duration {
	return func(p SendProbe) time.Duration {
		if slices.Contains(ways, p.Way) {
			return d
		}
		return -1
	}
}

var natted = NAT{Mapping: MappingEndpointIndependent, Filtering: FilteringAddressAndPortDependent}

func remote(nat NAT, cands ...Candidate) RemoteChanged {
	return RemoteChanged{Remote: Remote{CanProbe: true, NAT: nat, Candidates: cands}}
}

func srflx(s string) Candidate { return Candidate{ServerReflexive, addr(s)} }

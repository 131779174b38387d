package path

import (
	"math/bits"
	"time"

	"corax/dataplane/key"
)

// pair is one way that may be tried: a candidate of the peer from our tunnel
// socket (or one of a birthday search), a relay, or a stream.
type pair struct {
	way  Way
	kind CandidateKind
	told bool // the peer announces it

	via     []key.Public  // relay
	cost    time.Duration // relay: as the owner said
	penalty time.Duration // relay: its configured part
	hinted  time.Duration // relay: cost when it was last measured anew for its sake
	leaving bool          // relay: about to stop
	again   int           // further probes soon, since the cost is said to be another

	start time.Time // of the schedule of probes
	next  time.Time // zero: nothing more to send
	step  int
	low   bool // begin with a low TTL
	more  int  // further probes after the first answer

	proven   bool
	dead     bool // fell silent, until answered again
	unproved bool // works without probes: the peer was heard on it
	answered time.Time
	heard    time.Time
	sent     time.Time
	probes   int
	misses   int // probes without answer, in a row
	quality  quality
	lead     int // own samples in a row by which it was clearly better than the way in use

	mtu mtuSearch
}

// quality is the smoothed RTT and the loss of the last 32 probes on a way.
type quality struct {
	rtt    time.Duration
	n      int // samples, up to 1 << 20
	window uint32
	filled int

	// Samples in a row far away, all on one side: the way is another now.
	away int
	sum  time.Duration
}

// changedAfter is after how many such samples the smoothing begins anew.
const changedAfter = 3

func (q *quality) answer(rtt time.Duration) {
	if q.n < 1<<20 {
		q.n++
	}
	low, high := rtt < q.rtt/2-time.Millisecond, rtt > q.rtt*3/2+time.Millisecond
	if q.n == 1 || !low && !high || q.away > 0 && low != (q.sum < q.rtt*time.Duration(q.away)) {
		q.away, q.sum = 0, 0
	}
	if low || high {
		q.away++
		q.sum += rtt
	}
	if q.away == changedAfter {
		q.rtt, q.away, q.sum = q.sum/changedAfter, 0, 0
	} else if q.away == 0 || q.n <= changedAfter {
		q.rtt += (rtt - q.rtt) / time.Duration(min(q.n, 16))
	}
	q.window <<= 1
	q.filled = min(q.filled+1, 32)
}

func (q *quality) miss() {
	q.window = q.window<<1 | 1
	q.filled = min(q.filled+1, 32)
}

func (q *quality) loss() float64 {
	if q.filled == 0 {
		return 0
	}
	return float64(bits.OnesCount32(q.window)) / float64(q.filled)
}

// penalty is what the loss costs: a lone lost probe nothing, 10 percent 20 ms.
func (q *quality) penalty() time.Duration {
	lost := max(0, bits.OnesCount32(q.window)-1)
	return time.Duration(lost) * 200 * time.Millisecond / time.Duration(max(q.filled, 16))
}

// unknownCost is that of a relay of which nothing is known: more than any way
// that was measured.
const unknownCost = time.Second

// price is the cost of a way: RTT, loss, and small preferences.
func (m *Machine) price(p *pair) time.Duration {
	extra := time.Duration(0)
	switch p.way.Kind {
	case Relay:
		extra = m.cfg.RelayPenalty
	case Stream:
		extra = m.cfg.StreamPenalty
	}
	if p.leaving {
		extra += leavingCost
	}
	switch {
	case p.quality.n > 0:
		return p.quality.rtt + p.quality.penalty() + p.penalty + extra
	case p.cost > 0:
		return p.cost + extra
	}
	return unknownCost + p.penalty + extra
}

func (m *Machine) findPair(w Way) *pair {
	for _, p := range m.pairs {
		if p.way == w {
			return p
		}
	}
	for _, p := range m.relays {
		if p.way == w {
			return p
		}
	}
	return nil
}

// removePairs drops the direct pairs for which drop says so. The one in use is
// dropped only from the list.
func (m *Machine) removePairs(drop func(*pair) bool) {
	kept := m.pairs[:0]
	for _, p := range m.pairs {
		if !drop(p) {
			kept = append(kept, p)
		} else {
			m.live.forget(p)
		}
	}
	clear(m.pairs[len(kept):])
	m.pairs = kept
}

// anyDirect reports whether a direct way is proven.
func (m *Machine) anyDirect() bool {
	for _, p := range m.pairs {
		if p.proven {
			return true
		}
	}
	return false
}

// expireProofs forgets proofs older than a NAT keeps an idle mapping.
func (m *Machine) expireProofs() {
	for _, p := range m.pairs {
		if p.proven && m.now.Sub(latest(p.answered, p.heard)) > m.trust() {
			p.proven = false
		}
	}
	for _, p := range m.relays {
		p.dead, p.misses = false, 0
	}
}

// trust is how long a way is believed to work after its last sign of life.
func (m *Machine) trust() time.Duration {
	t := 25 * time.Second
	if l := m.lifetime(); l > 0 && l < t {
		t = l
	}
	return t
}

func (m *Machine) lifetime() time.Duration {
	a, b := m.local.NAT.Lifetime, m.remote.NAT.Lifetime
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

package path

import "time"

const (
	openers    = 4 // probes with a low TTL
	fastUntil  = 3 * time.Second
	roundUntil = 10 * time.Second
	firstRetry = 30 * time.Second
	lastRetry  = 10 * time.Minute
	moreProbes = 3 // after the first answer: the peer's own early probes were dropped
	fastGap    = 200 * time.Millisecond
)

// round is one try at all candidates.
type round struct {
	running bool
	start   time.Time
	next    time.Time     // of the next one; zero: not planned
	wait    time.Duration // before the next one
	cursor  int           // where the rate limit stopped us
	called  time.Time     // last Announce that another asked for
}

// schedule returns when probe n of a pair is due, counted from its start, and
// with which TTL. The openers pass our own NATs, one or two hops away, but do
// not reach the peer's. They are repeated with growing TTL since nobody knows
// how far that is, and the peer starts up to a round trip later than we do.
func schedule(n int, low bool) (at time.Duration, ttl int, ok bool) {
	from := time.Duration(0)
	if low {
		switch n {
		case 0:
			return 0, 2, true
		case 1:
			return 150 * time.Millisecond, 2, true
		case 2:
			return 350 * time.Millisecond, 3, true
		case 3:
			return 550 * time.Millisecond, 4, true
		}
		n -= openers
		from = 700 * time.Millisecond
	}
	fast := int((fastUntil-from)/fastGap) + 1
	if n < fast {
		return from + time.Duration(n)*fastGap, 0, true
	}
	at = fastUntil + time.Duration(n-fast+1)*time.Second
	return at, 0, at <= roundUntil
}

// restart begins the schedule of a pair.
func (m *Machine) restart(p *pair) {
	p.start, p.next, p.step = m.now, m.now, 0
	p.low = m.behindNAT(Candidate{p.kind, p.way.To})
	p.more = 0
}

// open ends the openers of a pair: the peer's packets come through already. A
// schedule that came to its end without an answer begins anew.
func (m *Machine) open(p *pair) {
	if _, _, ok := schedule(p.step, p.low); p.low && p.step <= openers || !ok || p.next.IsZero() {
		p.start, p.step = m.now, 0
	}
	p.low = false
	p.next = m.now
}

// beginRound probes all candidates from the start. With call the peer is asked
// to do the same now.
func (m *Machine) beginRound(call bool) {
	m.round.running, m.round.start, m.round.next, m.round.cursor = true, m.now, time.Time{}, 0
	m.beginPrediction()
	for _, p := range m.pairs {
		if !p.proven {
			m.restart(p)
		}
	}
	m.do(Announce{Call: call})
}

// punch sends the probes that are due, and plans the next round.
func (m *Machine) punch() {
	if !m.round.running {
		m.retry()
		return
	}
	if m.canPunch() {
		m.predictMore()
		if m.sendDue() {
			return
		}
	}
	m.round.running = m.predict.on
	if m.round.running || m.anyDirect() {
		return
	}
	m.round.wait = min(max(2*m.round.wait, firstRetry), lastRetry)
	m.round.next = m.now.Add(m.round.wait)
	m.wakeAt(m.round.next)
}

func (m *Machine) retry() {
	if m.round.next.IsZero() || m.anyDirect() {
		return
	}
	if m.now.Before(m.round.next) {
		m.wakeAt(m.round.next)
		return
	}
	m.beginRound(true)
	m.wakeAt(m.now)
}

// sendDue reports whether there is more to send.
func (m *Machine) sendDue() (more bool) {
	settled := m.cur != nil && m.cur.way.Kind == Direct && m.cur.proven
	n := len(m.pairs)
	for i := range n {
		k := (m.round.cursor + i) % n
		p := m.pairs[k]
		if p.next.IsZero() {
			continue
		}
		if settled && !p.proven && m.now.Sub(p.start) >= fastUntil {
			p.next = time.Time{}
			continue
		}
		if !p.next.After(m.now) && !m.sendNext(p) {
			m.round.cursor = k
			m.wakeAt(m.flights.refilled(m.now))
			return true
		}
		m.wakeAt(p.next)
		more = more || !p.next.IsZero()
	}
	m.round.cursor = 0
	return more
}

// sendNext sends the probe of p that is due, and plans the one after it.
func (m *Machine) sendNext(p *pair) bool {
	if p.proven {
		if !m.launch(flight{way: p.way, pair: p, purpose: forLife}, 0) {
			return false
		}
		p.more--
		p.next = time.Time{}
		if p.more > 0 {
			p.next = m.now.Add(fastGap)
		}
		return true
	}
	_, ttl, ok := schedule(p.step, p.low)
	if ok && !m.launch(flight{way: p.way, pair: p}, ttl) {
		return false
	}
	p.step++
	at, _, ok := schedule(p.step, p.low)
	if !ok {
		p.next = time.Time{}
		return true
	}
	// What a late Tick missed is not made up for.
	if p.next = p.start.Add(at); !p.next.After(m.now) {
		p.start = p.start.Add(m.now.Sub(p.next) + 50*time.Millisecond)
		p.next = m.now.Add(50 * time.Millisecond)
	}
	return true
}

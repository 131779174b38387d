package path

import "time"

const (
	silentFor   = 300 * time.Millisecond // sent without anything received
	checkGap    = 100 * time.Millisecond
	checkProbes = 3
	checkFor    = 500 * time.Millisecond // from the first of them to the verdict, on short ways
	warmBusy    = 5 * time.Second
	warmQuiet   = 15 * time.Second
	warmLeast   = 2 * time.Second
	busyFor     = 15 * time.Second // after the last data
)

// liveness watches the way in use.
type liveness struct {
	known          bool
	sent, received uint64
	sampled        time.Time
	data           time.Time // last growth of either counter
	unheard        time.Time // first data sent after the last sign of life; zero: none
	expect         time.Time // a keep-warm probe must be answered by then; zero: none under way

	checking  bool
	checkAt   time.Time
	checkNext time.Time
	checkSent int
	other     *pair
}

// reset forgets what was seen on the way before.
func (l *liveness) reset() {
	*l = liveness{known: l.known, sent: l.sent, received: l.received, sampled: l.sampled, data: l.data}
}

// alive takes an answer on the way in use.
func (l *liveness) alive(m *Machine) {
	if l.checking {
		m.confirmMTU()
	}
	l.checking, l.expect, l.unheard, l.other = false, time.Time{}, time.Time{}, nil
}

// otherHeard reports whether the other way of a check answered it.
func (l *liveness) otherHeard(*Machine) bool {
	return l.checking && l.other != nil && !l.other.answered.Before(l.checkAt)
}

// traffic takes a sample of the counters.
func (m *Machine) traffic(ev Traffic) {
	l := &m.live
	sent := l.known && ev.Sent > l.sent
	received := l.known && ev.Received > l.received
	before := l.sampled
	l.known, l.sent, l.received, l.sampled = true, ev.Sent, ev.Received, m.now
	if sent || received {
		l.data = m.now
		m.touch(true)
	}
	if m.cur == nil {
		return
	}
	if ev.Heard.After(m.cur.heard) && !ev.Heard.Before(m.since) {
		m.cur.heard = ev.Heard
		m.heardOn(m.cur)
	}
	if sent && l.unheard.IsZero() && m.cur.heard.Before(before) {
		l.unheard = latest(before, m.cur.heard)
	}
}

// heardOn takes a datagram of the peer on the way in use.
func (m *Machine) heardOn(p *pair) {
	l := &m.live
	l.unheard, l.expect = time.Time{}, time.Time{}
	l.checking, l.other = false, nil
	if p.way.Kind == Direct && !p.proven {
		p.unproved = true
	}
	if m.blind.pair == p {
		m.blind.rounds = 0
	}
}

// probed reports whether the way in use is judged by probes.
func (m *Machine) probed() bool {
	return m.cur != nil && m.remote.CanProbe && (m.cur.proven || m.cur.way.Kind != Direct)
}

// checkLive starts, drives and decides the check of a way that fell silent.
func (m *Machine) checkLive() {
	l := &m.live
	if !m.probed() || m.cur.dead {
		return
	}
	if !l.checking {
		due := l.expect
		if !l.unheard.IsZero() {
			if t := l.unheard.Add(silentFor); due.IsZero() || t.Before(due) {
				due = t
			}
		}
		if due.IsZero() || m.now.Before(due) {
			m.wakeAt(due)
			return
		}
		l.checking, l.checkAt, l.checkNext, l.checkSent = true, m.now, m.now, 0
		l.other = m.best(m.cur)
	}
	for l.checkSent < checkProbes && !m.now.Before(l.checkNext) {
		m.launch(flight{way: m.cur.way, pair: m.cur, purpose: forLife}, 0)
		// The first one alone often shows that all is well.
		if l.other != nil && l.checkSent > 0 {
			m.launch(flight{way: l.other.way, pair: l.other, purpose: forLife}, 0)
		}
		l.checkSent++
		l.checkNext = m.now.Add(checkGap)
	}
	verdict := l.checkAt.Add(max(checkFor, m.cur.quality.rtt*3/2+checkGap))
	if m.now.Before(verdict) {
		if l.checkSent < checkProbes {
			m.wakeAt(l.checkNext)
		}
		m.wakeAt(verdict)
		return
	}
	if o := l.other; o != nil && o.answered.Before(l.checkAt) && o.quality.rtt < checkFor/2 && o.quality.n > 0 {
		o.proven, o.dead = false, true // asked as often as the one in use
	}
	m.fail(m.cur, ReasonSilent, "")
	m.wakeAt(m.now.Add(time.Millisecond))
}

// warmEvery is the time between two probes on a way that is kept warm.
func (m *Machine) warmEvery() time.Duration {
	every := warmQuiet
	if m.now.Sub(m.live.data) < busyFor {
		every = warmBusy
	}
	if l := m.lifetime() * 3 / 5; l > 0 {
		every = max(min(every, l), warmLeast)
	}
	return every
}

// keepWarm probes the way in use, and those that would take over.
func (m *Machine) keepWarm() {
	if !m.remote.CanProbe || m.cur == nil {
		return
	}
	if m.probed() && !m.live.checking {
		if m.warm(m.cur) && m.live.expect.IsZero() {
			m.live.expect = m.now.Add(max(silentFor, 2*m.cur.quality.rtt+checkGap))
		}
		m.wakeAt(m.live.expect)
	}
	direct, relay := m.standbys()
	for _, p := range [2]*pair{direct, relay} {
		if p != nil {
			m.warm(p)
		}
	}
	for _, p := range m.relays {
		if p.dead && p != relay {
			m.warm(p)
		}
	}
}

// warm sends the probe on p that is due, and reports whether it did.
func (m *Machine) warm(p *pair) bool {
	at := p.sent.Add(m.warmGap(p))
	if p.proven && p.more > 0 && p.next.After(at) {
		at = p.next // punch samples it
	}
	if m.now.Before(at) {
		m.wakeAt(at)
		return false
	}
	if !m.launch(flight{way: p.way, pair: p, purpose: forLife}, 0) {
		m.wakeAt(m.flights.refilled(m.now))
		return false
	}
	m.wakeAt(m.now.Add(m.warmGap(p)))
	return true
}

// warmGap is warmEvery, but a second while little is known of the way.
func (m *Machine) warmGap(p *pair) time.Duration {
	switch {
	case p.dead:
		return warmLeast
	case p.quality.n < firstSamples && p.probes < 2*firstSamples:
		return fastGap
	}
	return m.warmEvery()
}

// standbys are the best direct way and the best relay that are not in use.
func (m *Machine) standbys() (direct, relay *pair) {
	for _, p := range m.pairs {
		if p.proven && p != m.cur && p.more <= 0 && (direct == nil || m.price(p) < m.price(direct)) {
			direct = p
		}
	}
	for _, p := range m.relays {
		if !p.dead && p != m.cur && (relay == nil || m.price(p) < m.price(relay)) {
			relay = p
		}
	}
	// Others are not kept warm, so their proofs grow old.
	for _, p := range m.pairs {
		if p.proven && p != m.cur && p != direct && m.now.Sub(p.answered) > m.trust() {
			p.proven = false
		}
	}
	return direct, relay
}

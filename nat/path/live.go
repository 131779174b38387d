package path

import (
	"slices"
	"time"
)

const (
	silentFor   = 300 * time.Millisecond // sent without anything received
	checkGap    = 100 * time.Millisecond
	checkProbes = 3
	checkFor    = 500 * time.Millisecond // from the first of them to the verdict, on unmeasured ways
	checkLeast  = 350 * time.Millisecond // on short ways
	maxOthers   = 4                      // ways that are asked together with the one in use
	oneWayFor   = 5 * time.Second        // after a check that was answered the others are not asked at once
	askedFor    = time.Second            // after the last data a check of the peer begins ours
	askedGap    = 5 * time.Second        // between two that began so
	warmBusy    = 5 * time.Second
	warmQuiet   = 15 * time.Second
	warmLeast   = 2 * time.Second
	leadGap     = 500 * time.Millisecond
	stale       = warmQuiet + 3*time.Second
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
	others    []*pair
	passed    time.Time // last check that was answered
	steady    int       // samples in a row with something received
	quiet     int       // samples since then
	asked     time.Time // last check that a probe of the peer began
	network   string    // why the network changed, while the check for that runs
}

// reset forgets what was seen on the way before; the flow goes on.
func (l *liveness) reset() {
	*l = liveness{
		known: l.known, sent: l.sent, received: l.received, sampled: l.sampled, data: l.data, others: l.others[:0],
		steady: l.steady, quiet: l.quiet,
	}
}

// alive takes an answer on the way in use.
func (l *liveness) alive(m *Machine) {
	if l.checking {
		l.passed = m.now
		m.confirmMTU()
	}
	l.checking, l.expect, l.unheard, l.others = false, time.Time{}, time.Time{}, l.others[:0]
	l.network = ""
}

// otherHeard reports whether another way answered the check.
func (l *liveness) otherHeard() bool {
	for _, o := range l.others {
		if l.checking && !o.answered.Before(l.checkAt) {
			return true
		}
	}
	return false
}

// forget drops a way that is no longer offered or allowed.
func (l *liveness) forget(p *pair) {
	l.others = slices.DeleteFunc(l.others, func(o *pair) bool { return o == p })
}

// pickOthers chooses what may take over: the best direct way and the relays.
func (m *Machine) pickOthers() {
	l := &m.live
	l.others = l.others[:0]
	if direct, _ := m.standbys(); direct != nil {
		l.others = append(l.others, direct)
	}
	for _, p := range m.relays {
		if p != m.cur && !p.dead && len(l.others) < maxOthers {
			l.others = append(l.others, p)
		}
	}
}

// traffic takes a sample of the counters.
func (m *Machine) traffic(ev Traffic) {
	l := &m.live
	sent := l.known && ev.Sent > l.sent
	received := l.known && ev.Received > l.received
	before := l.sampled
	l.known, l.sent, l.received, l.sampled = true, ev.Sent, ev.Received, m.now
	l.listen(m, received)
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

const (
	steadySamples = 3 // in a row with something received make a steady flow
	quietSamples  = 2 // in a row without end it
)

// listen has the way checked when a steady flow of the peer stops: who only
// answers has nothing to send by which he would notice that the way is dead.
func (l *liveness) listen(m *Machine, received bool) {
	switch {
	case received:
		l.steady, l.quiet = l.steady+1, 0
	case l.steady < steadySamples:
		l.steady = 0
	default:
		if l.quiet++; l.quiet == quietSamples {
			l.steady, l.quiet = 0, 0
			m.suspect()
		}
	}
}

// heardOn takes a datagram of the peer on the way in use.
func (m *Machine) heardOn(p *pair) {
	l := &m.live
	l.unheard, l.expect = time.Time{}, time.Time{}
	l.checking, l.others = false, l.others[:0]
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
		m.pickOthers()
		m.do(Silent{})
	}
	for l.checkSent < checkProbes && !m.now.Before(l.checkNext) {
		m.launch(flight{way: m.cur.way, pair: m.cur, purpose: forLife}, 0)
		// Where data flows one way only, the first probe alone shows that all is well.
		if l.checkSent > 0 || l.passed.IsZero() || m.now.Sub(l.passed) > oneWayFor {
			for _, o := range l.others {
				m.launch(flight{way: o.way, pair: o, purpose: forLife}, 0)
			}
		}
		l.checkSent++
		l.checkNext = m.now.Add(checkGap)
	}
	verdict := l.checkAt.Add(m.patienceFor(m.cur))
	if m.now.Before(verdict) {
		if l.checkSent < checkProbes {
			m.wakeAt(l.checkNext)
		}
		m.wakeAt(verdict)
		return
	}
	for _, o := range l.others {
		// Asked as often as the one in use. A slow way may still answer, if it
		// did so not long ago.
		late := o.quality.n == 0 || m.patienceFor(o) < m.now.Sub(l.checkAt)+checkGap || m.now.Sub(o.answered) > stale
		if o.answered.Before(l.checkAt) && late {
			o.proven, o.dead = false, true
		}
	}
	if why := l.network; why != "" {
		m.fail(m.cur, ReasonNetworkChanged, why)
	} else {
		m.fail(m.cur, ReasonSilent, "")
	}
	m.wakeAt(m.now.Add(time.Millisecond))
}

// suspect has the way in use checked now.
func (m *Machine) suspect() {
	if l := &m.live; m.active && m.probed() && !l.checking {
		l.expect = m.now
	}
}

// askedOn takes a probe of the peer over another way than the one in use. Its check of
// a way that fell silent asks the relays, too, so ours begins with it if we hear
// nothing either: who only answers has nothing by which he would notice.
func (m *Machine) askedOn(w Way) {
	l := &m.live
	if m.cur == nil || m.cur.dead || l.checking || m.relayOf(w) == nil || !m.unheardFor(silentFor) {
		return
	}
	if m.now.Sub(l.data) < askedFor && (l.asked.IsZero() || m.now.Sub(l.asked) > askedGap) {
		l.asked = m.now
		m.suspect()
	}
}

// unheardFor reports whether nothing came over the way in use for d, and it has been
// in use for as long.
func (m *Machine) unheardFor(d time.Duration) bool {
	return m.now.Sub(latest(m.cur.heard, m.since)) >= d
}

// heardOther follows the peer to another way, when the one in use is dead or no
// probe tells: it went there because nothing came through.
func (m *Machine) heardOther(w Way) {
	alive := m.cur != nil && !m.cur.dead
	if !m.active || alive && (m.tested() || !m.unheardFor(silentFor)) {
		return
	}
	if p := m.relayOf(w); p != nil && !(alive && p.leaving && !m.cur.leaving) {
		p.dead, p.heard = false, m.now
		m.use(p, ReasonSilent, "the peer uses this one")
	}
}

// tested reports whether a probe on the way in use was answered lately. Else probes say
// nothing about it: the peer may have told its key just now.
func (m *Machine) tested() bool {
	return m.remote.CanProbe && !m.cur.answered.IsZero() && m.now.Sub(m.cur.answered) < stale
}

// relayOf returns the relay that w is, if it is another than the one in use.
func (m *Machine) relayOf(w Way) (found *pair) {
	if m.cur != nil && w == m.cur.way {
		return nil
	}
	for _, p := range m.relays {
		switch {
		case p == m.cur:
		case p.way == w:
			found = p
		case found == nil && p.way.Kind == w.Kind && p.way.Hub == w.Hub && p.way.Stream == w.Stream:
			found = p // the label may be about to change
		}
	}
	return found
}

// patienceFor is how long the answers to a check may take.
func (m *Machine) patienceFor(p *pair) time.Duration {
	if p.quality.n == 0 {
		return checkFor
	}
	return max(checkLeast, p.quality.rtt*3/2+2*checkGap)
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
		if (p.dead || p.again > 0) && p != relay && p != m.cur {
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
	p.again = max(p.again-1, 0)
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
	case p.again > 0:
		return fastGap
	case p.lead > 0:
		return leadGap // it may be about to take over
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

package path

import "time"

const (
	// A way that is in use is left for another that is better by both for
	// leadFor samples of that in a row.
	clearGain  = 5 * time.Millisecond
	clearShare = 15 // percent
	leadFor    = 5
	// An RTT from fewer samples decides only when one way costs less than half.
	settledSamples = 8
	// proofWait is how long a way that works without proof is kept when another
	// is proven: the answers of several addresses of one peer come together.
	proofWait    = 500 * time.Millisecond
	firstSamples = 3
	// leavingCost is added to a relay that is about to stop.
	leavingCost = time.Second
)

// worthwhile reports whether a gain over cost is worth a change.
func worthwhile(gain, cost time.Duration) bool {
	return gain > clearGain && gain > cost*clearShare/100
}

// choose makes the best way the path, when the present one cannot be used or is
// clearly worse.
func (m *Machine) choose() {
	best := m.best(nil)
	switch cur := m.cur; {
	case m.usable(cur):
		m.upgrade(cur)
	case best != nil:
		m.use(best, m.cause(best), "")
	case cur == nil || cur.way.Kind != Direct && !m.offered(cur):
		// A relay that fell silent is better than none: without any way in
		// use nothing is probed, so it would stay dead for ever.
		m.use(m.lastRelay(), ReasonRelays, "")
	}
}

// cause says why best replaces a way that cannot be used.
func (m *Machine) cause(best *pair) Reason {
	switch {
	case m.cur == nil:
		if best.way.Kind == Direct {
			return ReasonProven
		}
		return ReasonWanted
	case best.way.Kind == Direct:
		return ReasonProven
	case m.cur.way.Kind == Direct:
		return ReasonReproving
	case m.cur.dead:
		return ReasonSilent
	}
	return ReasonRelays
}

// usable reports whether p may stay the path.
func (m *Machine) usable(p *pair) bool {
	switch {
	case p == nil:
		return false
	case p.way.Kind != Direct:
		return !p.dead && m.offered(p)
	}
	return p.proven || p.unproved || p == m.blind.pair && m.mayBlind()
}

func (m *Machine) offered(p *pair) bool {
	for _, r := range m.relays {
		if r == p {
			return true
		}
	}
	return false
}

// best returns the cheapest way that works, but not except; nil: none.
func (m *Machine) best(except *pair) (best *pair) {
	better := func(p *pair) {
		if p != except && (best == nil || m.price(p) < m.price(best)) {
			best = p
		}
	}
	for _, p := range m.pairs {
		if p.proven {
			better(p)
		}
	}
	for _, p := range m.relays {
		if !p.dead && !m.blindFirst() {
			better(p)
		}
	}
	return best
}

// upgrade leaves a way that works only for one that is clearly better.
func (m *Machine) upgrade(cur *pair) {
	if cur.leaving {
		if p := m.best(cur); p != nil && !p.leaving {
			m.use(p, ReasonLeaving, "") // while the old one still works
			return
		}
	}
	if cur.way.Kind != Direct || !cur.proven {
		if at := m.round.start.Add(proofWait); cur.way.Kind == Direct && !cur.dead && m.now.Before(at) {
			m.wakeAt(at) // its own proof may be on its way
			return
		}
		if p := m.fresh(cur); p != nil {
			m.use(p, ReasonProven, "")
			return
		}
	}
	var best *pair
	for _, list := range [2][]*pair{m.pairs, m.relays} {
		for _, p := range list {
			if m.leadsLong(p) && p != cur && m.candidate(p) && (best == nil || m.price(p) < m.price(best)) {
				best = p
			}
		}
	}
	if best != nil {
		m.use(best, ReasonCheaper, "")
	}
}

// fresh returns the cheapest direct way that was proven just now: it takes over
// from a relay at once, unless that was measured to cost clearly less.
func (m *Machine) fresh(cur *pair) (best *pair) {
	for _, p := range m.pairs {
		if !p.proven || p.quality.n > firstSamples || best != nil && m.price(p) >= m.price(best) {
			continue
		}
		if cur.quality.n >= firstSamples && cur.way.Kind != Direct {
			if a, b := m.price(p), m.price(cur); worthwhile(a-b, a) {
				continue
			}
		}
		best = p
	}
	return best
}

// candidate reports whether p may take over.
func (m *Machine) candidate(p *pair) bool {
	if p.way.Kind == Direct {
		return p.proven
	}
	return !p.dead && !m.blindFirst()
}

// sample counts for how long p, which was measured just now, has been better
// than the way in use.
func (m *Machine) sample(p *pair) {
	if m.cur == nil || p == m.cur || !m.candidate(p) || !m.leads(p, m.price(m.cur)) {
		p.lead = 0
		return
	}
	p.lead++
}

// leadsLong reports whether p has been better for long enough, which is less
// when it costs less than half.
func (m *Machine) leadsLong(p *pair) bool {
	cost := m.price(m.cur)
	return p.lead >= leadFor || p.lead >= firstSamples && cost-m.price(p) > cost/2
}

func (m *Machine) leads(p *pair, cost time.Duration) bool {
	gain := cost - m.price(p)
	settled := p.quality.n >= settledSamples && m.cur.quality.n >= settledSamples
	switch {
	case p.way.Kind == Direct && m.cur.way.Kind != Direct:
		// It was passed over or left as clearly worse; the same margin again
		// would make them change places.
		return gain >= 0 && settled
	case p.way.Kind != Direct && m.cur.way.Kind != Direct && p.quality.n == 0:
		return worthwhile(gain, cost) && cost < unknownCost
	case p.quality.n < firstSamples || m.cur.quality.n < firstSamples:
		return false
	}
	return worthwhile(gain, cost) && (settled || gain > cost/2)
}

// use makes p the path; nil takes it away.
func (m *Machine) use(p *pair, cause Reason, detail string) {
	if p == m.cur {
		return
	}
	var from, to Way
	if m.cur != nil {
		from = m.cur.way
	}
	if p != nil {
		to = p.way
	}
	if m.blind.pair != p {
		m.blind.pair = nil
	}
	m.cur, m.since = p, m.now
	m.log.add(Transition{At: m.now, From: from, To: to, Cause: cause, Detail: detail})
	m.live.reset()
	for _, list := range [2][]*pair{m.pairs, m.relays} {
		for _, q := range list {
			q.lead = 0
		}
	}
	m.do(Use{Way: to, Cause: cause})
}

// fail takes a way for dead. When it is in use the best other one takes over,
// and all candidates are probed again: the NAT may have forgotten us.
func (m *Machine) fail(p *pair, cause Reason, detail string) {
	worked := p.proven || p.unproved || p.way.Kind != Direct && !p.dead
	p.proven, p.unproved, p.dead = false, false, true
	p.quality = quality{}
	p.mtu = mtuSearch{}
	p.next = time.Time{}
	if p.way.Socket != 0 && p.way.Socket == m.search.kept {
		m.giveUpSocket()
	}
	if p != m.cur || !m.active {
		return
	}
	heard := m.live.otherHeard()
	m.live.reset()
	if next := m.survivor(); next != nil {
		m.use(next, cause, detail)
	}
	if !heard {
		m.do(Handshake{}) // nothing answers: the peer may have started anew
	}
	if worked {
		m.changed()
		m.beginRound(true)
	}
}

// survivor is the way to take when the one in use died. Without any that is
// alive a relay is better than a direct way, since it needs no mapping. Where
// nothing can be probed only use shows which relay is alive again.
func (m *Machine) survivor() *pair {
	if p := m.best(m.cur); p != nil {
		return p
	}
	if m.cur != nil && (m.cur.way.Kind == Direct || !m.remote.CanProbe) {
		return m.lastRelay()
	}
	return nil
}

// lastRelay revives the one of the silent relays that worked last; nil: there
// is none, or unproven addresses come first.
func (m *Machine) lastRelay() (best *pair) {
	if m.blindFirst() {
		return nil
	}
	for _, p := range m.relays {
		if p != m.cur && (best == nil || p.answered.After(best.answered)) {
			best = p
		}
	}
	if best != nil {
		best.dead = false
	}
	return best
}

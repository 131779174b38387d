package path

import (
	"slices"
	"time"
)

func (m *Machine) localChanged(l Local) {
	old := m.local
	m.local = l
	m.removePairs(func(p *pair) bool { return !m.allowed(p.way.To) })
	m.addTold()
	news := differ(old.NAT, l.NAT, old.Candidates, l.Candidates)
	if news {
		m.changed()
	}
	if cur := m.cur; cur != nil && cur.way.Kind == Direct && !m.allowed(cur.way.To) {
		if m.fail(cur, ReasonForbidden, ""); m.cur == cur {
			m.use(nil, ReasonForbidden, "")
		}
	}
	if !m.active {
		return
	}
	switch {
	case news && !m.anyDirect():
		m.beginRound(true)
	case news || m.predict.on && !slices.Equal(old.Candidates, l.Candidates):
		m.do(Announce{})
	}
}

func (m *Machine) remoteChanged(ev RemoteChanged) {
	old := m.remote
	m.remote = ev.Remote
	m.remote.Candidates = m.remote.Candidates[:min(len(m.remote.Candidates), maxCandidates)]
	told := m.cur != nil && m.cur.told
	m.forgetUntold()
	m.addTold()
	if told && !m.cur.told {
		m.suspect() // the peer is elsewhere, for all it says
	}
	news := differ(old.NAT, m.remote.NAT, old.Candidates, m.remote.Candidates) || old.CanProbe != m.remote.CanProbe
	if news {
		m.changed()
	}
	woken := false
	if ev.Call {
		woken = !m.active
		m.touch(false)
	}
	if !m.active {
		return
	}
	called := ev.Call && m.now.Sub(m.round.called) >= callGap
	fresh := m.round.running && m.now.Sub(m.round.start) < callGap && m.round.start != m.now
	if b := m.blind.pair; b != nil && b.way.Kind == Direct && !b.told && !b.proven && m.mayBlind() {
		m.tryBlind(m.blindable(nil)) // it is not there any more
	}
	switch {
	case news && !m.anyDirect():
		if !woken {
			m.beginRound(false)
		}
	case called && !fresh:
		m.callRound()
	case called && fresh:
		m.do(Announce{})
	default:
		return
	}
	if called {
		m.round.called = m.now
	}
}

// callRound probes because the peer asks. What is proven stays so, but is
// proven again.
func (m *Machine) callRound() {
	m.beginRound(false)
	for _, p := range m.pairs {
		if p.proven {
			p.more, p.next = 1, m.now
		}
	}
}

// changed ends all back-off.
func (m *Machine) changed() {
	m.round.wait, m.round.next = 0, time.Time{}
	if m.search.running {
		m.search.again = true // it may be looking in the wrong place
	} else {
		m.search.tried, m.search.result = false, ReasonNone
	}
	m.blind.rounds = 0
}

// differ reports whether there is something new to try. Behind a NAT with
// another port for each destination the reflexive port is another at each
// measurement: that is no news.
func differ(a, b NAT, ca, cb []Candidate) bool {
	if a != b {
		return true
	}
	if !b.hard() {
		return !slices.Equal(ca, cb)
	}
	return !slices.EqualFunc(ca, cb, func(x, y Candidate) bool {
		return x == y || x.Kind == y.Kind && x.Kind == ServerReflexive && x.Addr.Addr() == y.Addr.Addr()
	})
}

// addTold makes a pair of every candidate that may be probed.
func (m *Machine) addTold() {
	for _, c := range m.remote.Candidates {
		if !m.allowed(c.Addr) {
			continue
		}
		w := Way{Kind: Direct, To: c.Addr}
		p := m.findPair(w)
		if p == nil {
			p = &pair{way: w, kind: c.Kind}
			m.pairs = append(m.pairs, p)
			if m.active {
				m.restart(p)
				m.round.running = true
			}
		}
		p.told = true
		if p.kind == PeerReflexive || p.kind == Predicted {
			p.kind = c.Kind
		}
	}
}

// forgetUntold drops what the peer no longer announces and never worked.
func (m *Machine) forgetUntold() {
	m.removePairs(func(p *pair) bool {
		if !p.told || slices.ContainsFunc(m.remote.Candidates, func(c Candidate) bool { return c.Addr == p.way.To }) {
			return false
		}
		p.told = false
		return !p.proven && p != m.cur
	})
}

func (m *Machine) relaysChanged(relays []RelayWay) {
	old := m.relays
	m.relays = make([]*pair, 0, len(relays))
	for _, r := range relays {
		if r.Way.Kind != Relay && r.Way.Kind != Stream {
			continue
		}
		i := slices.IndexFunc(old, func(p *pair) bool { return p.way == r.Way })
		p := &pair{way: r.Way}
		if i >= 0 {
			p = old[i]
		}
		if !m.remote.CanProbe {
			p.dead = false // nothing else could revive it
		}
		p.via, p.cost, p.penalty, p.leaving = r.Via, r.Cost, r.Penalty, r.Leaving
		p.measureAgain()
		m.relays = append(m.relays, p)
	}
	for _, p := range old {
		if !m.offered(p) {
			m.live.forget(p)
		}
	}
	if m.active {
		for _, p := range m.relays {
			m.sample(p)
		}
	}
}

// measureAgain has a relay probed soon when the owner says that it costs clearly
// more or less than when it was measured last.
func (p *pair) measureAgain() {
	if d := (p.cost - p.hinted).Abs(); d > max(clearGain, p.hinted/3) {
		if p.hinted != 0 {
			p.again = changedAfter + 1
		}
		p.hinted = p.cost
	}
}

func (m *Machine) networkChanged(why string) {
	for _, p := range m.pairs {
		if p != m.cur || !m.active {
			p.proven, p.unproved = false, false
		}
		p.quality = quality{}
		p.mtu = mtuSearch{}
	}
	for _, p := range m.relays {
		p.dead, p.misses = false, 0
		p.mtu = mtuSearch{}
	}
	m.changed()
	m.flights.clear()
	m.endSearch(ReasonNone)
	m.search.tried = false
	if m.cur == nil || m.cur.way.Socket == 0 {
		m.giveUpSocket()
	}
	m.blind.reset()
	if !m.active {
		return
	}
	m.live.reset()
	m.beginRound(true)
	// Most changes leave the way in use alone: it is checked, and left if need be.
	m.suspect()
	m.live.network = why
}

func (m *Machine) lost(ev Lost) {
	p := m.findPair(ev.Way)
	if p == nil && m.cur != nil && m.cur.way == ev.Way {
		p = m.cur
	}
	if p != nil {
		m.fail(p, ReasonLost, ev.Why)
	}
}

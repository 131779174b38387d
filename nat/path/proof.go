package path

import "time"

// probeIn: the peer's packets come through from there.
func (m *Machine) probeIn(ev ProbeIn) {
	if ev.Way.Kind != Direct {
		m.askedOn(ev.Way)
		return
	}
	p := m.findPair(ev.Way)
	if p == nil {
		if p = m.addReflexive(ev.Way); p == nil {
			return
		}
	}
	p.heard = m.now
	if !m.active || p.proven || !m.canPunch() {
		return
	}
	// RFC 8445 section 7.3.1.4: a check in return, at once. One that went out
	// just now needs no second.
	if m.now.Sub(p.sent) >= 50*time.Millisecond || p.low {
		m.open(p)
		m.round.running = true
	}
}

// addReflexive takes the source of a probe as a candidate. The oldest ones that
// lead nowhere make room.
func (m *Machine) addReflexive(w Way) *pair {
	if !m.allowed(w.To) || w.Socket != 0 && !m.ours(w.Socket) {
		return nil
	}
	n := 0
	var oldest *pair
	for _, p := range m.pairs {
		if p.kind == PeerReflexive && !p.told {
			n++
			if oldest == nil && !p.proven && p != m.cur {
				oldest = p
			}
		}
	}
	if n >= maxReflexive {
		if oldest == nil {
			return nil
		}
		m.removePairs(func(p *pair) bool { return p == oldest })
	}
	p := &pair{way: w, kind: PeerReflexive}
	m.pairs = append(m.pairs, p)
	if m.active {
		m.restart(p)
		p.low = false // its packets come through already
	}
	return p
}

// ours reports whether a socket belongs to this peer's search.
func (m *Machine) ours(socket uint32) bool {
	if socket == m.search.kept {
		return true
	}
	for _, s := range m.search.sockets {
		if s == socket {
			return true
		}
	}
	return false
}

func (m *Machine) answerIn(ev AnswerIn) {
	fl, ok := m.flights.take(ev.Tx, ev.Way)
	if !ok {
		return
	}
	p := fl.pair
	if p == nil {
		// A port of the birthday search.
		if p = m.findPair(fl.way); p == nil {
			if p = m.addReflexive(fl.way); p == nil {
				return
			}
		}
	}
	if m.gone(p) {
		return
	}
	m.prove(p)
	if fl.purpose == forMTU {
		m.fits(p, fl.size)
		return
	}
	p.quality.answer(m.now.Sub(fl.at))
	m.sample(p)
}

// gone reports whether a pair left the lists while its probe was under way.
func (m *Machine) gone(p *pair) bool {
	return p != m.cur && m.findPair(p.way) != p
}

// prove notes that a probe on p was answered.
func (m *Machine) prove(p *pair) {
	p.answered, p.heard = m.now, m.now
	p.dead, p.misses = false, 0
	if p == m.cur {
		m.live.alive(m)
	}
	if p.proven {
		return
	}
	p.proven, p.unproved = true, false
	if p.way.Kind != Direct {
		return
	}
	if p.kind == Predicted {
		p.kind = PeerReflexive // no guess any more: worth trying again
	}
	p.quality = quality{}
	p.more, p.next = moreProbes, m.now.Add(fastGap)
	m.round.running = true
	m.round.wait, m.round.next = 0, time.Time{}
}

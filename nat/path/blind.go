package path

import "time"

const (
	patience = time.Second // for the first sign of life on a way without probes
	// relayPatience is that for a relay that worked, when there is another.
	relayPatience = 600 * time.Millisecond
	maxPatience   = 32 * time.Second
)

// blind is the use of ways without proof, when there is nothing better: a hub
// before its hello, or a mesh without hub. One after another is tried with a
// handshake, the stream to the peer last.
type blind struct {
	pair   *pair // tried now
	rounds int   // full ones without success
	asked  time.Time
}

func (b *blind) reset() { *b = blind{} }

// blindWait is how long probes have to find a way before one is tried without
// proof: a handshake to the peer's NAT may spoil what the openers are for.
const blindWait = 5 * time.Second

// blindFirst reports whether unproven addresses come before relays and streams:
// those of a hub always, those of others when there is no relay.
func (m *Machine) blindFirst() bool {
	if m.remote.CanProbe || m.local.NAT.Blocked || !m.toldAny() {
		return false
	}
	return !m.hasRelay() || m.remote.Hub && m.blind.rounds == 0
}

func (m *Machine) toldAny() bool {
	for _, p := range m.pairs {
		if p.told {
			return true
		}
	}
	return false
}

// hasRelay reports whether there is a way over hubs, be it a silent one.
func (m *Machine) hasRelay() bool {
	for _, p := range m.relays {
		if p.way.Kind == Relay {
			return true
		}
	}
	return false
}

// mayBlind reports whether ways without proof are tried now.
func (m *Machine) mayBlind() bool {
	if m.blindFirst() {
		return true
	}
	if m.hasRelay() {
		return false
	}
	if !m.remote.CanProbe || m.remote.Hub || m.local.NAT.Blocked {
		return true
	}
	return !m.now.Before(m.round.start.Add(blindWait))
}

// blindable returns the way after prev in the order of trial; nil: the end.
func (m *Machine) blindable(prev *pair) *pair {
	found := prev == nil
	for _, p := range m.pairs {
		if found && (p.told || !p.heard.IsZero()) && !m.local.NAT.Blocked {
			return p
		}
		found = found || p == prev
	}
	for _, p := range m.relays {
		if found && p.way.Kind == Stream {
			return p
		}
		found = found || p == prev
	}
	return nil
}

// rotateBlind tries ways without proof.
func (m *Machine) rotateBlind() {
	b := &m.blind
	if b.pair != nil && b.pair != m.cur {
		b.pair = nil
	}
	if b.pair == nil {
		// A dead stream in use is retried like the addresses.
		stream := m.cur != nil && m.cur.way.Kind == Stream && m.cur.dead
		if m.usable(m.cur) && !stream || m.best(nil) != nil {
			m.judgeUnproved()
			return
		}
		if m.mayBlind() {
			m.tryBlind(m.blindable(nil))
		} else if at := m.round.start.Add(blindWait); m.now.Before(at) {
			m.wakeAt(at)
		}
		return
	}
	if m.cur.proven {
		b.pair = nil
		return
	}
	if m.cur.heard.After(b.asked) {
		m.judgeUnproved()
		return
	}
	wait := min(patience<<min(b.rounds, 5), maxPatience)
	if at := b.asked.Add(wait); m.now.Before(at) {
		m.wakeAt(at)
		return
	}
	m.advanceBlind()
}

// judgeUnproved leaves a way that once worked without probes when what is sent
// on it stays unanswered for a second.
func (m *Machine) judgeUnproved() {
	if m.cur == nil || m.probed() || m.live.unheard.IsZero() || m.cur.way.Kind == Direct && m.cur.proven {
		return
	}
	wait := patience
	if m.cur.way.Kind == Relay && len(m.relays) > 1 {
		wait = relayPatience
	}
	if at := m.live.unheard.Add(wait); m.now.Before(at) {
		m.wakeAt(at)
		return
	}
	if m.blind.pair != nil {
		m.advanceBlind()
		return
	}
	if m.cur.dead {
		return
	}
	m.fail(m.cur, ReasonSilent, "")
	m.wakeAt(m.now.Add(time.Millisecond))
}

func (m *Machine) advanceBlind() {
	m.cur.unproved = false
	next := m.blindable(m.cur)
	if next == nil {
		m.blind.rounds++
		next = m.blindable(nil)
	}
	m.tryBlind(next)
}

func (m *Machine) tryBlind(p *pair) {
	if p == nil {
		return
	}
	cause := ReasonUnprobed
	if m.cur != nil {
		cause = ReasonSilent
	}
	m.blind.pair, m.blind.asked = p, m.now
	p.dead = false
	m.live.unheard = time.Time{}
	m.use(p, cause, "")
	m.do(Handshake{})
	m.wakeAt(m.now.Add(min(patience<<min(m.blind.rounds, 5), maxPatience)))
}

package path

import (
	"time"

	"corax/dataplane/key"
)

// Status is a snapshot of a Machine. It belongs to the caller, but for Via.
type Status struct {
	Way         Way
	Via         []key.Public // hubs of a relay; must not be written to
	Since       time.Time    // of Way
	Active      bool         // there is traffic; false: idle
	Proven      bool         // a probe on Way was answered lately
	Why         Reason       // why it is not better
	Detail      string       // what Why leaves open, such as the text of an error; may be empty
	RTT         time.Duration
	Loss        float64   // of the last probes on Way, 0 to 1
	MTU         int       // inner, of Way
	MTU6        int       // what is shown for IPv6: never below 1280
	Heard       time.Time // last sign of life over Way
	NextTry     time.Time // when candidates are probed again; zero: not planned
	Candidates  []CandidateStatus
	Transitions []Transition // the last 100, oldest first
	Probes      uint64       // sent
	BadAnswers  uint64       // answers without their probe, or from another address
}

// CandidateStatus is one way that is, was or might be tried.
type CandidateStatus struct {
	Way    Way
	Kind   CandidateKind // of a Direct way
	Via    []key.Public  // of a Relay way
	Proven bool
	RTT    time.Duration
	Loss   float64
	Score  time.Duration // cost; zero: not known
	MTU    int           // inner; zero: not searched
	Sent   int           // probes
	Why    Reason
}

// Transition is one change of the way in use.
type Transition struct {
	At       time.Time
	From, To Way
	Cause    Reason
	Detail   string
}

// MTU6 is the inner MTU that IPv6 is shown on a path with the inner MTU mtu: at
// least 1280, which RFC 8200 section 5 asks of every link. Inner IPv6 packets
// between the two are sent in outer datagrams that may be fragmented.
func MTU6(mtu int) int { return max(mtu, minMTU6) }

// Proven reports whether a probe on the way in use was answered lately.
func (m *Machine) Proven() bool { return m.cur != nil && m.cur.proven && !m.cur.dead }

// Status returns a snapshot.
func (m *Machine) Status() Status {
	s := Status{
		Since:       m.since,
		Active:      m.active,
		MTU:         m.mtu,
		MTU6:        MTU6(m.mtu),
		NextTry:     m.round.next,
		Transitions: m.log.all(),
		Probes:      m.flights.sent,
		BadAnswers:  m.flights.bad,
	}
	s.Why, s.Detail = m.why()
	if p := m.cur; p != nil {
		s.Way, s.Via, s.Heard = p.way, p.via, p.heard
		s.Proven = p.proven && !p.dead
		s.RTT, s.Loss = p.quality.rtt, p.quality.loss()
	}
	for _, list := range [2][]*pair{m.pairs, m.relays} {
		for _, p := range list {
			s.Candidates = append(s.Candidates, m.candidateStatus(p))
		}
	}
	for _, c := range m.remote.Candidates {
		if !m.allowed(c.Addr) {
			s.Candidates = append(s.Candidates, CandidateStatus{
				Way: Way{Kind: Direct, To: c.Addr}, Kind: c.Kind, Why: ReasonForbidden,
			})
		}
	}
	return s
}

func (m *Machine) candidateStatus(p *pair) CandidateStatus {
	c := CandidateStatus{
		Way: p.way, Kind: p.kind, Via: p.via, Proven: p.proven && !p.dead,
		RTT: p.quality.rtt, Loss: p.quality.loss(), MTU: p.mtu.good, Sent: p.probes,
	}
	if cost := m.price(p); cost < unknownCost {
		c.Score = cost
	}
	switch {
	case p == m.cur && m.usable(p):
		c.Why = ReasonBest
	case p.proven:
		c.Why = ReasonProven
	case p.dead:
		c.Why = ReasonSilent
	case !p.answered.IsZero():
		c.Why = ReasonStale
	case !p.next.IsZero():
		c.Why = ReasonProbing
	case p.probes > 0:
		c.Why = ReasonNoAnswer
	}
	return c
}

// why says why the path is not better.
func (m *Machine) why() (Reason, string) {
	cur := m.cur
	switch {
	case !m.active && cur == nil:
		return ReasonNone, ""
	case !m.active:
		return ReasonIdle, ""
	case cur != nil && cur.way.Kind == Direct && cur.proven:
		return ReasonBest, ""
	case cur != nil && cur.way.Kind == Direct && !m.remote.CanProbe:
		return ReasonUnprobed, ""
	case m.anyDirect():
		return ReasonRelayCheaper, ""
	}
	if why, detail := m.whyNotDirect(); why != ReasonNoAnswer || cur != nil {
		return why, detail
	}
	return ReasonNoWay, ""
}

// whyNotDirect says why no direct way is proven.
func (m *Machine) whyNotDirect() (Reason, string) {
	switch {
	case m.local.NAT.Blocked:
		return ReasonLocalBlocked, ""
	case m.remote.NAT.Blocked:
		return ReasonRemoteBlocked, ""
	case !m.remote.CanProbe:
		return ReasonNoProbeKey, ""
	case len(m.pairs) == 0:
		return ReasonNoCandidates, ""
	case m.search.running:
		return ReasonBirthday, ""
	case m.predict.on:
		return ReasonPredicting, ""
	case m.hopeless():
		return ReasonBothRandom, ""
	case m.search.result != ReasonNone && !m.round.next.IsZero():
		return m.search.result, m.search.detail
	case m.round.running:
		return ReasonProbing, ""
	}
	return ReasonNoAnswer, ""
}

// hopeless reports that neither end can guess the port of the other.
func (m *Machine) hopeless() bool {
	l, r := m.local.NAT, m.remote.NAT
	return l.hard() && r.hard() && (l.random() || r.random())
}

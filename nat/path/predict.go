package path

import (
	"net/netip"
	"time"
)

const (
	predictPorts    = 20
	predictEvery    = 3 * time.Second
	predictAttempts = 4
)

// prediction is the search for the next ports of a peer's NAT that numbers its
// mappings in sequence.
type prediction struct {
	on      bool
	attempt int
	next    time.Time
	base    netip.AddrPort // last mapping of the peer that we know
	from    int            // attempt at which base was new
}

// predictable reports whether the peer's next ports can be guessed, and we can
// be reached from them: behind a NAT of the same kind, or a better one.
func (m *Machine) predictable() bool {
	return m.canPunch() && m.remote.NAT.hard() && m.remote.NAT.PortStep != 0 && !m.local.NAT.random()
}

// lastMapped is the newest reflexive IPv4 address that the peer told.
func (m *Machine) lastMapped() (ap netip.AddrPort) {
	for _, c := range m.remote.Candidates {
		if c.Kind == ServerReflexive && c.Addr.Addr().Is4() && m.allowed(c.Addr) {
			ap = c.Addr
		}
	}
	return ap
}

func (m *Machine) beginPrediction() {
	m.predict = prediction{}
	m.removePairs(func(p *pair) bool { return p.kind == Predicted && !p.proven && p != m.cur })
	if m.predictable() && m.lastMapped().IsValid() && !m.anyDirect() {
		m.predict.on = true
		m.guess()
	}
}

// predictMore begins the next attempt when it is due.
func (m *Machine) predictMore() {
	if !m.predict.on {
		return
	}
	if m.anyDirect() || !m.predictable() {
		m.predict.on = false
		return
	}
	if m.now.Before(m.predict.next) {
		m.wakeAt(m.predict.next)
		return
	}
	if m.predict.attempt == predictAttempts {
		m.predict.on = false
		return
	}
	m.guess()
	if m.local.NAT.hard() {
		m.do(Announce{})
	}
	m.wakeAt(m.predict.next)
}

// guess puts the ports of one attempt at the head of the pairs: when both NATs
// number their mappings, the n-th packet of one end must meet the n-th of the
// other, so nothing else may go out before. That fails when either NAT gave
// ports to somebody else meanwhile; later attempts go in random order, which
// meets in about two of three.
func (m *Machine) guess() {
	base := m.lastMapped()
	d := &m.predict
	if base != d.base {
		d.base, d.from = base, d.attempt
	}
	m.removePairs(func(p *pair) bool { return p.kind == Predicted && !p.proven && p != m.cur })
	shift := 0
	if m.local.NAT.hard() {
		shift = predictPorts * (d.attempt - d.from) // what the attempts before used up
	} else {
		shift = predictPorts / 2 * (d.attempt - d.from)
	}
	order := make([]int, predictPorts)
	for i := range order {
		order[i] = i
	}
	if d.attempt > 0 {
		m.cfg.Rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	ahead := make([]*pair, 0, predictPorts+len(m.pairs))
	for _, k := range order {
		port := int(base.Port()) + m.remote.NAT.PortStep*(shift+k+1)
		if port < 1024 || port > 65535 {
			continue
		}
		w := Way{Kind: Direct, To: netip.AddrPortFrom(base.Addr(), uint16(port))}
		if m.findPair(w) == nil {
			p := &pair{way: w, kind: Predicted}
			m.restart(p)
			ahead = append(ahead, p)
		}
	}
	m.pairs = append(ahead, m.pairs...)
	m.round.cursor = 0
	d.attempt++
	d.next = m.now.Add(predictEvery)
}

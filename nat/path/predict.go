package path

import (
	"net/netip"
	"time"
)

const (
	predictPorts    = 20
	predictEvery    = 3 * time.Second
	predictAttempts = 4
	predictTell     = time.Second // after an attempt: the ports it used up are measured again
)

// prediction is the search for the next ports of a peer's NAT that numbers its
// mappings in sequence.
type prediction struct {
	on      bool
	attempt int
	next    time.Time
	tell    time.Time      // when to announce our last mapping anew; zero: done
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
	if d := &m.predict; !d.tell.IsZero() {
		if m.now.Before(d.tell) {
			m.wakeAt(d.tell)
			return
		}
		d.tell = time.Time{}
		m.do(Announce{})
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
	m.wakeAt(m.predict.next)
}

// guess puts the ports of one attempt at the head of the pairs, so that nothing
// else uses up mappings before.
//
// When both NATs number their mappings, a packet must leave from just the port
// that the other end sends to, both ways. Let one end be s mappings further than
// the other believes, and send its i-th packet to port i; let the other be w
// further, and send its j-th to port p(j). They meet when i = w+j and
// p(j) = s+w+j. With p(j) = 2j-3 there is one such j for each s+w from -2 to 17,
// so nobody needs to know how many mappings others took meanwhile.
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
	sweep := m.local.NAT.hard() && m.cfg.Peer.Less(m.cfg.Self)
	ahead := make([]*pair, 0, predictPorts+len(m.pairs))
	for k := 1; k <= predictPorts; k++ {
		n := k
		if sweep {
			n = 2*k - 3
		}
		port := int(base.Port()) + m.remote.NAT.PortStep*(shift+n)
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
	if m.local.NAT.hard() {
		d.tell = m.now.Add(predictTell)
	}
}

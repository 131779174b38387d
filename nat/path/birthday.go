package path

import (
	"net/netip"
	"slices"
	"time"
)

// The birthday search: one end is behind a NAT that draws a random port for
// each mapping, the other behind one that lets in only what it sent to. The
// hard end opens many mappings towards the easy end, which sends to random
// ports of the hard end until it meets one: with 256 sockets half of the
// searches hit within 174 probes, 99 of 100 within 1,158.
const (
	searchSockets = 256
	searchProbes  = 2500
	searchBatch   = 5
	searchTick    = 50 * time.Millisecond // 100 probes a second
	searchFor     = 30 * time.Second
	searchKnown   = time.Second      // after the round's start, when the filtering is known
	searchUnknown = 3 * time.Second  // when it is not
	passEvery     = 10 * time.Second // openings of the hard end, by TTL 2, 3, 4
	passes        = 3
)

type role uint8

const (
	noRole role = iota
	hardEnd
	easyEnd
)

type birthday struct {
	tried   bool // not again before something changes
	running bool
	again   bool // something changed while it runs
	waiting bool // for SocketsOpened
	role    role
	start   time.Time
	next    time.Time
	sent    int // probes: of this pass for the hard end, of all for the easy one
	pass    int
	sockets []uint32
	kept    uint32 // the socket of the way that was found
	first   uint32 // port sequence of the easy end
	stride  uint32
	result  Reason
	detail  string
}

// roleOf says which end we are. Both ends come to the same result.
func (m *Machine) roleOf() role {
	easy := func(n NAT) bool {
		return (n.Mapping == MappingNone || n.Mapping == MappingEndpointIndependent) &&
			(n.Filtering == FilteringUnknown || n.Filtering == FilteringAddressAndPortDependent)
	}
	switch {
	case m.local.NAT.random() && easy(m.remote.NAT):
		return hardEnd
	case m.remote.NAT.random() && easy(m.local.NAT):
		return easyEnd
	}
	return noRole
}

// searchPort begins, drives and ends the search.
func (m *Machine) searchPort() {
	s := &m.search
	if s.running {
		m.driveSearch()
		return
	}
	if s.tried || !m.canPunch() || !m.round.running || m.anyDirect() {
		return
	}
	r := m.roleOf()
	if r == noRole || len(m.searchTargets()) == 0 {
		return
	}
	delay := searchUnknown
	if r == hardEnd && m.remote.NAT.Filtering != FilteringUnknown || r == easyEnd && m.local.NAT.Filtering != FilteringUnknown {
		delay = searchKnown
	}
	if at := m.round.start.Add(delay); m.now.Before(at) {
		m.wakeAt(at)
		return
	}
	if !m.relayed() {
		s.result = ReasonBirthdayNoRelay
		m.wakeAt(m.now.Add(time.Second))
		return
	}
	*s = birthday{tried: true, running: true, role: r, start: m.now, next: m.now, kept: s.kept}
	if r == hardEnd {
		s.waiting = true
		m.do(OpenSockets{N: searchSockets})
	} else {
		s.first, s.stride = m.cfg.Rand.Uint32N(searchSpace), m.cfg.Rand.Uint32N(searchSpace/2)*2+1
		for gcd(s.stride, searchSpace) != 1 {
			s.stride += 2
		}
	}
	m.driveSearch()
}

// relayed reports whether a relay carries the traffic meanwhile.
func (m *Machine) relayed() bool {
	return m.cur != nil && m.cur.way.Kind != Direct && !m.cur.dead
}

func (m *Machine) driveSearch() {
	s := &m.search
	switch {
	case m.anyDirect():
		m.endSearch(ReasonNone)
	case m.roleOf() != s.role || !m.canPunch() || len(m.searchTargets()) == 0:
		m.endSearch(ReasonNone)
		s.tried = false
	case !m.now.Before(s.start.Add(searchFor)):
		m.endSearch(ReasonBirthdayFailed)
	case !m.relayed():
		m.endSearch(ReasonBirthdayNoRelay)
		s.tried = false
	case s.waiting:
		m.wakeAt(s.start.Add(searchFor))
	case m.now.Before(s.next):
		m.wakeAt(s.next)
	case s.role == hardEnd:
		m.openMappings()
	default:
		m.tryPorts()
	}
}

// openMappings sends from every socket to every target. The TTL is low, as for
// all openers: where these reached the easy end's NAT, just the ports that are
// searched for would be spoiled.
func (m *Machine) openMappings() {
	s := &m.search
	targets := m.searchTargets()
	for s.sent < len(s.sockets)*len(targets) {
		w := Way{Kind: Direct, To: targets[s.sent/len(s.sockets)], Socket: s.sockets[s.sent%len(s.sockets)]}
		if !m.launch(flight{way: w}, 2+s.pass) {
			s.next = m.flights.refilled(m.now)
			m.wakeAt(s.next)
			return
		}
		s.sent++
	}
	s.pass, s.sent = s.pass+1, 0
	s.next = s.start.Add(time.Duration(s.pass) * passEvery)
	if s.pass == passes {
		s.next = s.start.Add(searchFor)
	}
	if !s.next.After(m.now) {
		s.next = m.now.Add(time.Second)
	}
	m.wakeAt(s.next)
}

// searchSpace is the number of ports that a NAT draws from: 1024 to 65535.
const searchSpace = 65536 - 1024

// tryPorts sends the next few probes to ports that were not tried yet. Since
// the NAT draws at random, any order is as good as another.
func (m *Machine) tryPorts() {
	s := &m.search
	targets := m.searchTargets()
	for range searchBatch {
		if s.sent == searchProbes {
			break
		}
		n := (uint64(s.first) + uint64(s.sent)*uint64(s.stride)) % searchSpace
		to := targets[s.sent%len(targets)].Addr()
		if !m.launch(flight{way: Way{Kind: Direct, To: netip.AddrPortFrom(to, uint16(1024+n))}}, 0) {
			break
		}
		s.sent++
	}
	s.next = m.now.Add(searchTick)
	if s.sent == searchProbes {
		s.next = s.start.Add(searchFor)
	}
	m.wakeAt(s.next)
}

// searchTargets are the peer's public IPv4 addresses; for the easy end each IP
// once.
func (m *Machine) searchTargets() (to []netip.AddrPort) {
	hard := m.remote.NAT.random()
	for _, c := range m.remote.Candidates[:min(len(m.remote.Candidates), maxCandidates)] {
		a := c.Addr.Addr()
		if !a.Is4() || private(a) || m.connected(a) || !m.allowed(c.Addr) || c.Kind == Host && m.remote.NAT.Mapping != MappingNone {
			continue
		}
		if !slices.ContainsFunc(to, func(b netip.AddrPort) bool { return b == c.Addr || hard && b.Addr() == a }) {
			to = append(to, c.Addr)
		}
	}
	return to[:min(len(to), 2)]
}

// endSearch stops the search and gives the sockets back, but that of a hit.
func (m *Machine) endSearch(why Reason) {
	s := &m.search
	if !s.running {
		return
	}
	s.running, s.waiting, s.result = false, false, why
	if s.again {
		s.again, s.tried = false, false
	}
	if s.role == easyEnd {
		return
	}
	for _, p := range m.pairs {
		if p.proven && p.way.Socket != 0 {
			s.kept = p.way.Socket
		}
	}
	s.sockets = nil
	m.do(CloseSockets{Keep: s.kept})
	m.dropSockets(s.kept)
}

// dropSockets removes the ways over sockets that are closed.
func (m *Machine) dropSockets(keep uint32) {
	m.removePairs(func(p *pair) bool { return p.way.Socket != 0 && p.way.Socket != keep })
}

// giveUpSocket closes the socket of an earlier hit.
func (m *Machine) giveUpSocket() {
	if m.search.kept != 0 {
		m.search.kept = 0
		m.do(CloseSockets{})
		m.dropSockets(0)
	}
}

func (m *Machine) socketsOpened(sockets []uint32) {
	s := &m.search
	if !s.waiting {
		if !s.running && len(sockets) > 0 {
			m.do(CloseSockets{Keep: s.kept}) // came after the end of the search
		}
		return
	}
	if len(sockets) == 0 {
		m.socketsRefused("no sockets")
		return
	}
	s.waiting, s.sockets, s.next = false, slices.Clone(sockets), m.now
}

func (m *Machine) socketsRefused(why string) {
	if s := &m.search; s.waiting {
		s.running, s.waiting, s.result, s.detail = false, false, ReasonSocketsRefused, why
	}
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

package path

import "time"

const (
	overheadWG   = 32 // WireGuard's header and tag, within the UDP payload
	mtuTries     = 3
	mtuTimeout   = 200 * time.Millisecond // and two round trips
	mtuRaise     = 10 * time.Minute       // RFC 8899 section 5.1.1, PMTU_RAISE_TIMER
	mtuConfirm   = 30 * time.Second       // while data flows
	mtuConfirmed = time.Second            // a confirmation holds at least so long
)

// mtuSearch is the state of DPLPMTUD (RFC 8899) on one way. A probe of size n
// has the UDP payload that an inner packet of n bytes has, so the relay header,
// which the sender of frames adds, counts in both.
type mtuSearch struct {
	good    int // largest inner MTU that was answered; zero: none
	bad     int // smallest that was not; zero: none
	size    int // under way; zero: none
	tries   int
	at      time.Time // the try under way is lost then
	done    time.Time // of the search; zero: not done
	checked time.Time // last answer at size good, or to a black hole test
	testing bool      // good is tested again
	since   time.Time // of the tries
}

// effective is the inner MTU that the way is used with.
func (s *mtuSearch) effective(cfg *Config) int {
	base := min(BaseMTU, cfg.MaxMTU)
	switch {
	case s.good > 0:
		return s.good
	case s.bad == 0 || s.bad > base:
		return base
	}
	return cfg.MinMTU
}

// candidate returns the next size to probe; zero: the search is over. First the
// base, then the largest size, which most ways carry, then halves.
func (s *mtuSearch) candidate(cfg *Config) int {
	base := min(BaseMTU, cfg.MaxMTU)
	bad := s.bad
	if bad == 0 {
		bad = cfg.MaxMTU + 16
	}
	good := s.good
	if good == 0 {
		if s.bad == 0 || s.bad > base {
			return base
		}
		good = cfg.MinMTU - 16
	}
	switch {
	case bad-good <= 16:
		return 0
	case s.bad == 0:
		return cfg.MaxMTU
	case good < defaultMaxMTU && bad > defaultMaxMTU && s.good > 0:
		return defaultMaxMTU
	}
	return good + (bad-good)/2&^15
}

// searchMTU drives the search on the way in use.
func (m *Machine) searchMTU() {
	p := m.cur
	if p == nil || p.way.Kind == Stream || !m.remote.CanProbe || p.answered.IsZero() || p.dead || m.live.checking {
		return
	}
	if p.way.Kind == Direct && !p.proven {
		return
	}
	s := &p.mtu
	if s.size != 0 && !m.now.Before(s.at) {
		m.mtuLost(p)
	}
	if s.size == 0 && !s.done.IsZero() {
		m.mtuIdle(s)
	}
	if s.size == 0 && s.done.IsZero() {
		if s.size = s.candidate(&m.cfg); s.size == 0 {
			s.done, s.checked = m.now, m.now
			m.wakeAt(m.now.Add(mtuConfirm))
			return
		}
		s.tries, s.at, s.since = 0, m.now, m.now
	}
	if s.size != 0 && !m.now.Before(s.at) {
		if !m.launch(flight{way: p.way, pair: p, purpose: forMTU, size: s.size}, 0) {
			m.wakeAt(m.flights.refilled(m.now))
			return
		}
		s.at = m.now.Add(mtuTimeout + 2*p.quality.rtt)
	}
	if s.size != 0 {
		m.wakeAt(s.at)
	}
}

// mtuIdle waits for the time to confirm or to raise.
func (m *Machine) mtuIdle(s *mtuSearch) {
	raise := s.done.Add(mtuRaise)
	if !m.now.Before(raise) {
		s.bad, s.done = 0, time.Time{}
		return
	}
	m.wakeAt(raise)
	if s.good <= m.cfg.MinMTU || m.now.Sub(m.live.data) > busyFor {
		return
	}
	if at := s.checked.Add(mtuConfirm); m.now.Before(at) {
		m.wakeAt(at)
		return
	}
	s.test(m.now)
}

// test probes once more what was good.
func (s *mtuSearch) test(now time.Time) {
	s.size, s.tries, s.testing = s.good, 0, true
	s.at, s.since, s.checked = now, now, now
}

// mtuLost counts a try that was not answered. After the last one the size is
// bad; when it was good before, the way became a black hole for it.
func (m *Machine) mtuLost(p *pair) {
	s := &p.mtu
	if s.tries++; s.tries < mtuTries {
		return // sent again, since at has passed
	}
	if p.answered.Before(s.since) {
		// Small ones must pass meanwhile, or the way is dead and not narrow.
		s.tries, s.since = 0, m.now
		p.sent = time.Time{}
		m.wakeAt(m.now.Add(time.Millisecond))
		return
	}
	if s.testing {
		s.good = 0
	}
	s.bad, s.size, s.testing, s.done = s.size, 0, false, time.Time{}
}

// confirmMTU tests whether large packets still pass, when small ones do but
// data stays unanswered.
func (m *Machine) confirmMTU() {
	if m.cur == nil {
		return
	}
	s := &m.cur.mtu
	if s.size == 0 && !s.done.IsZero() && s.good > m.cfg.MinMTU && m.now.Sub(s.checked) >= mtuConfirmed {
		s.test(m.now)
	}
}

// fits takes the answer to a probe of an inner MTU.
func (m *Machine) fits(p *pair, size int) {
	s := &p.mtu
	if s.bad != 0 && size >= s.bad {
		return // late: a smaller one was refused since
	}
	s.good = max(s.good, size)
	s.checked = m.now
	if s.size != 0 && s.size <= size {
		s.size, s.testing = 0, false
	}
}

// tooBig takes the word of the kernel.
func (m *Machine) tooBig(ev TooBig) {
	p := m.findPair(ev.Way)
	if p == nil {
		return
	}
	bad := (ev.Size - overheadWG) &^ 15
	if bad > m.cfg.MaxMTU {
		return // no size that we use
	}
	if bad <= m.cfg.MinMTU {
		bad = m.cfg.MinMTU + 16
	}
	s := &p.mtu
	if s.bad == 0 || bad < s.bad {
		s.bad = bad
	}
	if s.good >= s.bad {
		s.good, s.done = 0, time.Time{}
	}
	if s.size >= s.bad {
		s.size, s.testing = 0, false
	}
}

// showMTU tells what the way in use carries.
func (m *Machine) showMTU() {
	if m.cur == nil {
		return
	}
	mtu := m.cfg.MaxMTU // a stream cuts as it needs
	if m.cur.way.Kind != Stream {
		mtu = m.cur.mtu.effective(&m.cfg)
	}
	if mtu != m.mtu {
		m.mtu = mtu
		m.do(SetMTU{MTU: mtu})
	}
}

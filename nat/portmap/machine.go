package portmap

import (
	"errors"
	"net/netip"
	"slices"
	"time"
)

const (
	// recheck bounds how long a router's silent reboot, or a new external
	// address, stays unnoticed.
	recheck = 10 * time.Minute
	// permanentLife is how long a mapping without end is believed in when its
	// renewals get no answer.
	permanentLife = time.Hour

	retryMin = 30 * time.Second
	retryMax = time.Hour
	// pokeGap is the shortest time between two tries, however often somebody
	// says that the network changed.
	pokeGap = 5 * time.Second
	// renewGap is the shortest time between two renewals (RFC 6887 section
	// 11.2.1 says 4 s).
	renewGap = 4 * time.Second
	maxStale = 4
)

// actionKind is what a machine wants done.
type actionKind uint8

const (
	actNone   actionKind = iota // nothing before deadline
	actMap                      // make a mapping, then call mapped
	actRenew                    // renew it, then call mapped
	actRemove                   // delete grant; no call
)

type action struct {
	kind  actionKind
	grant grant // to renew or remove
	ask   ask
}

// machine decides for one address family when to ask the router for what. It
// is pure: no clock, no I/O; one goroutine owns it.
type machine struct {
	port     uint16 // internal
	wanted   bool
	gateways []netip.Addr

	have    grant // proto None: no mapping
	renewAt time.Time
	expires time.Time
	misses  int // renewals without answer since the last with one

	last     uint16 // external port of the last mapping: asked for again
	tryAt    time.Time
	tried    time.Time // begin of the last try or renewal
	failures int
	err      error // of the last try
	stale    []grant
	epoch    epoch
	reboots  uint64
}

// want switches the wish for a mapping.
func (m *machine) want(now time.Time, on bool) {
	if on == m.wanted {
		return
	}
	m.wanted = on
	if on {
		m.failures, m.err = 0, nil
		m.tryAt = m.soonest(now)
		return
	}
	m.drop(true)
}

// routers tells the default routers as they are now. A mapping at one that is
// gone is given up; poked asks to look at once although nothing is due.
func (m *machine) routers(now time.Time, gateways []netip.Addr, poked bool) {
	changed := !slices.Equal(gateways, m.gateways)
	m.gateways = slices.Clone(gateways)
	if m.have.proto != None && !slices.Contains(gateways, m.have.gateway) {
		m.drop(true)
		changed = true
	}
	if !changed && !poked {
		return
	}
	m.failures = 0
	soon := m.soonest(now)
	if m.tryAt.After(soon) {
		m.tryAt = soon
	}
	if m.have.proto != None && m.renewAt.After(soon) {
		m.renewAt = soon
	}
}

// soonest is when the next try may begin.
func (m *machine) soonest(now time.Time) time.Time {
	if next := m.tried.Add(pokeGap); !m.tried.IsZero() && next.After(now) {
		return next
	}
	return now
}

// next says what to do now.
func (m *machine) next(now time.Time) action {
	if m.have.proto != None && !now.Before(m.expires) {
		m.drop(false) // the router has forgotten it too
		m.tryAt = now
	}
	want := ask{internal: m.port, external: m.last}
	if want.external == 0 {
		want.external = m.port
	}
	switch {
	case m.wanted && m.have.proto == None && !now.Before(m.tryAt):
		m.tried = now
		return action{kind: actMap, ask: want}
	case m.wanted && m.have.proto != None && !now.Before(m.renewAt):
		m.tried = now
		return action{kind: actRenew, grant: m.have, ask: want}
	case len(m.stale) > 0:
		g := m.stale[0]
		m.stale = m.stale[1:]
		return action{kind: actRemove, grant: g}
	}
	return action{}
}

// deadline is when next has something to do; zero: not before the next call of
// another method.
func (m *machine) deadline() time.Time {
	switch {
	case !m.wanted:
		return time.Time{}
	case m.have.proto == None:
		return m.tryAt
	case m.renewAt.Before(m.expires):
		return m.renewAt
	}
	return m.expires
}

// mapped takes the outcome of a try or renewal.
func (m *machine) mapped(now time.Time, g grant, err error) {
	m.err = err
	switch {
	case err == nil:
		m.granted(now, g)
	case m.have.proto == None:
		m.failed(now, err)
	case answered(err): // the mapping is not ours any more
		m.drop(false)
		m.failures, m.tryAt = 0, now
	default:
		m.missed(now)
	}
}

func (m *machine) granted(now time.Time, g grant) {
	if g.proto != UPnP && m.epoch.see(now, g.proto, g.gateway, g.epoch) {
		m.reboots++ // this answer has made the mapping again already
	}
	// A mapping of an old address of ours is left to end by itself: only its
	// own address may delete it.
	m.have, m.last, m.failures, m.misses = g, g.external.Port(), 0, 0
	life := g.lifetime
	if life == 0 {
		life = permanentLife
	}
	m.expires = now.Add(life)
	m.renewAt = now.Add(min(life/2, recheck))
	if !m.wanted {
		m.drop(true)
	}
}

// failed puts the next try off: 30 s, and twice as long each time up to an hour,
// or as long as the router says that its refusal lasts.
func (m *machine) failed(now time.Time, err error) {
	wait := min(retryMin<<min(m.failures, 10), retryMax)
	m.failures++
	if e, ok := errors.AsType[*RefusedError](err); ok {
		wait = max(wait, min(e.Lasts, retryMax))
	}
	m.tryAt = now.Add(wait)
}

// missed puts a renewal without answer off: a minute, then twice that, but so
// that there are always more tries before the mapping ends.
func (m *machine) missed(now time.Time) {
	wait := time.Minute << min(m.misses, 6)
	m.misses++
	m.renewAt = now.Add(max(min(wait, m.expires.Sub(now)/2), renewGap))
}

// drop forgets the mapping; remove says to delete it at the router.
func (m *machine) drop(remove bool) {
	if remove && m.have.proto != None && len(m.stale) < maxStale {
		m.stale = append(m.stale, m.have)
	}
	m.have, m.renewAt, m.expires = grant{}, time.Time{}, time.Time{}
}

// answered tells a refusal from silence: the router is there and said no.
func answered(err error) bool {
	_, refused := errors.AsType[*RefusedError](err)
	return refused || errors.Is(err, ErrNotSpoken) || errors.Is(err, errNoExternal)
}

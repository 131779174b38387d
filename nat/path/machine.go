package path

import (
	"math/rand/v2"
	"time"
)

// Inner MTUs in bytes.
const (
	BaseMTU = 1360 // assumed until probed
	minMTU6 = 1280

	defaultMinMTU = 1184
	defaultMaxMTU = 1408
)

const (
	// activeFor is how long a path is held after the last traffic or Wanted.
	activeFor = 60 * time.Second
	// callGap is the least time between two rounds that others ask for.
	callGap = time.Second
)

// Machine is the state of one peer. It is not safe for concurrent use.
type Machine struct {
	cfg    Config
	local  Local
	remote Remote

	now      time.Time
	deadline time.Time // zero: none
	out      []Action

	active bool
	until  time.Time // active up to then

	pairs  []*pair // direct ways: predicted ones first
	relays []*pair // relays and streams
	cur    *pair   // in use; nil: none. May have left the lists
	since  time.Time
	mtu    int // last SetMTU
	log    history

	flights flights
	round   round
	predict prediction
	search  birthday
	live    liveness
	blind   blind
}

// New returns an idle Machine that knows nothing.
func New(cfg Config) *Machine {
	if cfg.Rand == nil {
		cfg.Rand = rand.New(rand.NewChaCha8(seed()))
	}
	if cfg.RelayPenalty == 0 {
		cfg.RelayPenalty = 10 * time.Millisecond
	}
	if cfg.StreamPenalty == 0 {
		cfg.StreamPenalty = 20 * time.Millisecond
	}
	if cfg.MinMTU == 0 {
		cfg.MinMTU = defaultMinMTU
	}
	if cfg.MaxMTU == 0 {
		cfg.MaxMTU = defaultMaxMTU
	}
	cfg.MinMTU &^= 15
	cfg.MaxMTU = max(cfg.MaxMTU&^15, cfg.MinMTU)
	return &Machine{cfg: cfg, mtu: BaseMTU}
}

func seed() (s [32]byte) {
	for i := range s {
		s[i] = byte(rand.Uint32()) //nolint:gosec // the runtime's generator is ChaCha8
	}
	return s
}

// Step takes in one event and returns what is to be done, in order. The slice
// is valid until the next Step. A time before that of an earlier Step counts as
// that time.
func (m *Machine) Step(now time.Time, ev Event) []Action {
	if now.After(m.now) {
		m.now = now
	}
	clear(m.out)
	m.out = m.out[:0]
	m.expire()
	m.handle(ev)
	m.deadline = time.Time{}
	if m.active {
		m.run()
	}
	return m.out
}

// Deadline returns when Step wants a Tick; zero: not before another event. It
// is always after the time of the last Step.
func (m *Machine) Deadline() time.Time { return m.deadline }

func (m *Machine) handle(ev Event) {
	switch ev := ev.(type) {
	case Wanted:
		m.touch(true)
	case LocalChanged:
		m.localChanged(ev.Local)
	case RemoteChanged:
		m.remoteChanged(ev)
	case RelaysChanged:
		m.relaysChanged(ev.Relays)
	case Traffic:
		m.traffic(ev)
	case ProbeIn:
		m.probeIn(ev)
	case AnswerIn:
		m.answerIn(ev)
	case NetworkChanged:
		m.networkChanged(ev.Why)
	case SocketsOpened:
		m.socketsOpened(ev.Sockets)
	case SocketsRefused:
		m.socketsRefused(ev.Err)
	case Lost:
		m.lost(ev)
	case TooBig:
		m.tooBig(ev)
	case Heard:
		m.heardOther(ev.Way)
	case Suspect:
		m.suspect()
	}
}

// run does everything that is due, and notes in deadline what comes next.
func (m *Machine) run() {
	if !m.now.Before(m.until) {
		m.sleep()
		return
	}
	m.wakeAt(m.until)
	m.checkLive()
	m.choose()
	m.rotateBlind()
	m.punch()
	m.searchPort()
	m.keepWarm()
	m.searchMTU()
	m.showMTU()
	if !m.deadline.After(m.now) {
		m.deadline = m.now.Add(time.Millisecond)
	}
}

// wakeAt asks for a Tick at t or before. The zero time asks for nothing.
func (m *Machine) wakeAt(t time.Time) {
	if !t.IsZero() && (m.deadline.IsZero() || t.Before(m.deadline)) {
		m.deadline = t
	}
}

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

// touch holds the path for another minute, and begins to look for one when the
// peer was idle; with call the peer is asked to do the same.
func (m *Machine) touch(call bool) {
	m.until = m.now.Add(activeFor)
	if m.active {
		return
	}
	m.active = true
	m.live.reset()
	m.live.data = m.now
	m.expireProofs()
	m.choose()
	if !m.anyDirect() && !m.round.next.After(m.now) {
		m.beginRound(call)
	}
}

// sleep ends all work until there is traffic again.
func (m *Machine) sleep() {
	m.active = false
	m.flights.clear()
	m.live.reset()
	m.round.running = false
	m.predict.on = false
	m.endSearch(ReasonNone)
	for _, p := range m.pairs {
		p.next = time.Time{}
	}
}

// canPunch reports whether probes over direct ways make sense.
func (m *Machine) canPunch() bool {
	return m.remote.CanProbe && !m.local.NAT.Blocked && !m.remote.NAT.Blocked
}

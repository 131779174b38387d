package nat

import (
	"sync"
	"sync/atomic"
	"time"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/stun"
)

const (
	maxDatagrams = 1024 // that wait
	// maxFlights bounds the requests of ours that may still be answered.
	maxFlights = 1 << 16
	flightFor  = 40 * time.Second
)

// inbox is how everybody else speaks to the agent's goroutine, without ever
// blocking. Notes are merged by peer, so they are bounded by the plan.
type inbox struct {
	datagrams chan message
	calls     chan func()
	bell      chan struct{} // notes wait
	drops     drops

	mu    sync.Mutex
	notes notes

	flightMu sync.Mutex
	flights  map[stun.TxID]flight
}

// message is a datagram whose Data is ours.
type message struct{ Datagram }

type notes struct {
	plan    *Plan
	wanted  map[key.Public]bool
	proven  map[key.Public]Path
	hello   map[key.Public]uint32 // bits by topic
	network string                // why the network changed; empty: it did not
	mapped  bool                  // a port mapping came, went or moved
}

// flight is a request of ours under way, so that other answers are dropped
// before they cost anything.
type flight struct {
	peer    key.Public // zero: asked of a STUN server
	purpose purpose
	at      time.Time
}

type purpose uint8

const (
	forMachine purpose = iota
	forLink            // a hub measures an edge
	forSTUN
	forFilter
)

func newInbox() *inbox {
	return &inbox{
		datagrams: make(chan message, maxDatagrams),
		calls:     make(chan func(), 64),
		bell:      make(chan struct{}, 1),
		flights:   make(map[stun.TxID]flight),
	}
}

func (b *inbox) note(f func(n *notes)) {
	b.mu.Lock()
	f(&b.notes)
	b.mu.Unlock()
	select {
	case b.bell <- struct{}{}:
	default:
	}
}

func (b *inbox) take() notes {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.notes
	b.notes = notes{}
	return n
}

func (b *inbox) setPlan(p *Plan) { b.note(func(n *notes) { n.plan = p }) }

func set[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}

func (b *inbox) helloUpdate(k key.Public, t hello.Topic) {
	b.note(func(n *notes) { set(&n.hello, k, n.hello[k]|1<<t) })
}

// expect lets the answer to a request in; false when there are too many.
func (b *inbox) expect(tx stun.TxID, f flight) bool {
	b.flightMu.Lock()
	defer b.flightMu.Unlock()
	if len(b.flights) >= maxFlights {
		return false
	}
	b.flights[tx] = f
	return true
}

func (b *inbox) expected(tx stun.TxID) (flight, bool) {
	b.flightMu.Lock()
	defer b.flightMu.Unlock()
	f, ok := b.flights[tx]
	return f, ok
}

// land ends a request that was answered.
func (b *inbox) land(tx stun.TxID) {
	b.flightMu.Lock()
	defer b.flightMu.Unlock()
	delete(b.flights, tx)
}

// expire forgets the requests that nobody will answer.
func (b *inbox) expire(now time.Time) {
	b.flightMu.Lock()
	defer b.flightMu.Unlock()
	for tx, f := range b.flights {
		if now.Sub(f.at) > flightFor {
			delete(b.flights, tx)
		}
	}
}

// dropReason says why a STUN message was not heard.
type dropReason int

const (
	dropMalformed dropReason = iota
	dropNotHub
	dropUnknownProbe
	dropUnsolicited
	dropUseless
	dropQueueFull
	dropProbeRate
	dropBadMAC
	dropUnknownSender
	dropWrongOrigin
	dropNoWayBack
	dropReasons
)

func (r dropReason) String() string {
	return [...]string{
		"malformed", "not_hub", "unknown_probe", "unsolicited", "useless", "queue_full", "probe_rate",
		"bad_mac", "unknown_sender", "wrong_origin", "no_way_back",
	}[r]
}

type drops [dropReasons]atomic.Uint64

func (d *drops) add(r dropReason) { d[r].Add(1) }

// Wanted notes that there is traffic for a peer, or that somebody asks for a
// path to it. It may be called where packets pass.
func (a *Agent) Wanted(k key.Public) {
	a.inbox.note(func(n *notes) { set(&n.wanted, k, true) })
}

// Proven notes that a peer's packet authenticated which came over p and not over
// its pinned path.
func (a *Agent) Proven(k key.Public, p Path) {
	a.inbox.note(func(n *notes) { set(&n.proven, k, p) })
}

// NetworkChanged notes that addresses or routes of this host changed.
func (a *Agent) NetworkChanged(why string) {
	a.inbox.note(func(n *notes) { n.network = why })
}

// Receive takes a STUN message off the tunnel port. Requests of strangers are
// answered here, when this node is a hub; what nobody waits for ends here.
func (a *Agent) Receive(d Datagram) {
	m, err := stun.Parse(d.Data)
	if err != nil {
		a.inbox.drops.add(dropMalformed)
		return
	}
	switch m.Kind {
	case stun.KindRequest:
		if _, ours := a.inbox.expected(m.Tx); !ours {
			a.serve(d)
			return
		}
	case stun.KindProbe:
		if m.To != a.probeID {
			a.inbox.drops.add(dropUnknownProbe)
			return
		}
	case stun.KindAnswer, stun.KindResponse, stun.KindRefusal:
		if _, ours := a.inbox.expected(m.Tx); !ours {
			a.inbox.drops.add(dropUnsolicited)
			return
		}
	default:
		a.inbox.drops.add(dropUseless)
		return
	}
	d.Data = append([]byte(nil), d.Data...)
	select {
	case a.inbox.datagrams <- message{d}:
	default:
		a.inbox.drops.add(dropQueueFull)
	}
}

// serve answers a plain Binding request.
func (a *Agent) serve(d Datagram) {
	if !a.isHub.Load() || !d.From.IsValid() || !d.Via.IsZero() || d.Stream != nil {
		a.inbox.drops.add(dropNotHub)
		return
	}
	tunnel := a.tunnel.Load()
	answer, ok := a.stunServer.Answer(nil, d.Data, d.From, time.Now())
	if !ok || tunnel == nil {
		return // counted by the server
	}
	(*tunnel).SendRaw([]Raw{{Path: Path{To: d.From, Local: d.Local, Socket: d.Socket}, Data: answer}})
}

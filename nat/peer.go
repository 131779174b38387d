package nat

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/cost"
	"corax/nat/path"
	"corax/nat/stream"
	"corax/nat/stun"
)

const (
	// sessionFor is how long an edge counts as ours after its last datagram: more
	// than two keepalives.
	sessionFor = 60 * time.Second
	// labelsFor is how long after the last packet labels are still asked for: as
	// long as WireGuard's session lives, so that the next packet finds a way.
	labelsFor = 200 * time.Second
)

// peer is what the loop knows of one peer.
type peer struct {
	Peer

	machine  *path.Machine         // nil: none needed
	deadline time.Time             // of the machine; zero: it sleeps
	way      path.Way              // in use, as the machine says
	parked   bool                  // the tunnel has another path than way, since nothing is sent
	asleep   time.Time             // since when the machine sleeps
	woken    time.Time             // when it last woke up
	seen     map[key.Public]uint64 // labels for it that were noticed, by hub
	asking   bool                  // hubs are asked for labels
	mtu      int                   // inner; zero: not known
	mtuAt    time.Time             // when it became that
	shownMTU int                   // that others were told of

	// What the peer told.
	remote   path.Remote
	probeID  stun.ProbeID
	probeKey stun.ProbeKey
	calls    uint32
	told     *hello.Candidates // the last one that was read
	costs    *hello.Costs
	claims   *hello.Claims // as others were told

	silence    int       // chores in which its path did not seem to work, in a row
	sentBefore uint64    // last.Sent at the last chores
	standing   time.Time // when it was last called for the sake of its gateway

	// What we tell it.
	candidates hello.Candidates
	introduced bool
	inSession  bool // as the book was told
	said       time.Time

	// Of a hub.
	draining  bool // it is about to stop
	unsure    bool // nothing came since its path changed
	answered  bool // it was heard at least once
	mapped    netip.AddrPort
	carried   Activity // sent and received in relay frames, and when
	held      time.Time
	suspected time.Time // when it was last checked for the sake of others
	conn      *stream.Conn
	number    uint64 // of conn
	dialling  dialling

	// Of an edge, when we are a hub.
	link    cost.Estimator
	flying  stun.TxID // of the probe under way; zero: none
	sentAt  time.Time
	samples int
	tested  hello.Test // the last that we were asked to help with
	helped  time.Time

	last     Activity
	chatter  chatter
	sent     tally
	received tally
	attempts uint64 // handshakes and first packets, which no counter of the tunnel shows
	relays   []path.RelayWay
	sockets  []uint32
}

func (p *peer) active() bool { return p.machine != nil && !p.deadline.IsZero() }

// session reports whether the peer is reached without a relay, at present.
func (a *Agent) session(p *peer, now time.Time) bool {
	if p.SameDomain {
		return false
	}
	if p.Keep && p.machine != nil {
		return p.answered && (p.way.Kind == path.Direct || p.way.Kind == path.Stream)
	}
	if p.active() && !p.parked && p.way.Kind == path.Direct && p.machine.Proven() {
		return true // what p sends may come another way, of which Heard knows nothing
	}
	act, ok := a.tun().Activity(p.Key)
	return ok && act.Path.own() && now.Sub(act.Heard) < sessionFor
}

// passive reports whether the peer keeps a session with us, and chooses the path.
func (a *Agent) passive(p *peer) bool {
	return a.plan.Self.Hub && !p.Keep && p.machine == nil && a.session(p, time.Now())
}

// machineOf makes the machine of a peer that has none.
func (a *Agent) machineOf(p *peer) {
	if p.machine != nil || p.SameDomain {
		return
	}
	p.machine = path.New(path.Config{Self: a.self, Peer: p.Key, MaxMTU: a.plan.MaxMTU})
	a.introduce(p)
	a.step(p, path.LocalChanged{Local: a.local})
	a.remoteChanged(p, false)
	a.offer(p)
}

// dropMachine leaves the path to the tunnel again.
func (a *Agent) dropMachine(p *peer) {
	if p.machine == nil {
		return
	}
	a.closeSockets(p, 0)
	p.machine, p.deadline, p.way, p.parked, p.asking = nil, time.Time{}, path.Way{}, false, false
	a.book.Ask(p.Key, nil)
	a.setMTU(p, 0)
}

// remoteChanged gives the machine the peer's end.
func (a *Agent) remoteChanged(p *peer, call bool) {
	r := path.Remote{Hub: p.Hub, NAT: p.remote.NAT, CanProbe: p.remote.CanProbe}
	add := func(c path.Candidate) {
		if c.Addr.IsValid() && !slices.ContainsFunc(r.Candidates, func(o path.Candidate) bool { return o.Addr == c.Addr }) {
			r.Candidates = append(r.Candidates, c)
		}
	}
	add(path.Candidate{Kind: path.Configured, Addr: p.Endpoint})
	for _, c := range p.remote.Candidates {
		add(c)
	}
	add(path.Candidate{Kind: path.LastProven, Addr: p.Proven})
	a.step(p, path.RemoteChanged{Remote: r, Call: call})
}

// want holds the path to a peer.
func (a *Agent) want(p *peer) {
	if p.machine == nil {
		return
	}
	p.held = time.Now()
	a.step(p, path.Wanted{})
}

// wanted takes a note that there is traffic for p.
func (a *Agent) wanted(p *peer) {
	if p.SameDomain || a.passive(p) {
		return
	}
	a.machineOf(p)
	p.attempts++
	a.want(p)
	a.sample(p, time.Now())
}

// proven takes a note that a packet of p came over another way than its path.
func (a *Agent) proven(p *peer, w Path) {
	switch {
	case p.machine == nil || p.Keep:
	case a.plan.Self.Hub && w.own() && (p.Hub || w.Stream != nil || p.way.Kind != path.Direct || !p.active()):
		// It keeps a session with us again. Who comes over a stream has no UDP, and
		// no machine of ours could find that way to it.
		a.follow(p, w)
	case !p.active():
		if a.dataCame(p, time.Now()) { // else it was a hello
			a.want(p)
		}
	default:
		a.step(p, path.Heard{Way: a.wayOf(message{Datagram{From: w.To, Socket: w.Socket, Stream: w.Stream, Via: w.Via, Label: w.Label, Peer: p.Key}})})
	}
}

// follow leaves the choice of the path to a peer that keeps a session with us.
func (a *Agent) follow(p *peer, w Path) {
	a.dropMachine(p)
	a.tun().SetPath(p.Key, w, false)
	p.inSession = false // it is to hear everything
	a.refreshSessions(time.Now())
}

// settle decides at a hub what becomes of a peer that nobody talks to any more.
// When it still says hello, it keeps a session with us: its relay frames are
// taken only from where it is reached, so it must not be parked elsewhere.
func (a *Agent) settle(p *peer, now time.Time) {
	if p.machine == nil || p.Keep || p.active() || p.asleep.IsZero() || p.parked {
		return
	}
	act, ok := a.tun().Activity(p.Key)
	switch {
	case ok && act.Path.own() && act.Heard.Sub(p.asleep) > choresEvery:
		a.follow(p, act.Path)
	case now.Sub(p.asleep) > settleFor:
		a.park(p)
	}
}

// settleFor is longer than a heartbeat of hello.
const settleFor = hello.Heartbeat + 5*time.Second

// step gives the machine of p an event and does what it asks for.
func (a *Agent) step(p *peer, ev path.Event) {
	if p.machine == nil {
		return
	}
	was := p.active()
	batch := probes{peer: p}
	for _, act := range slices.Clone(p.machine.Step(time.Now(), ev)) {
		if s, ok := act.(path.SendProbe); ok {
			batch.add(a, s)
			continue
		}
		batch.send(a)
		a.do(p, act)
	}
	batch.send(a)
	p.deadline = p.machine.Deadline()
	switch now := p.active(); {
	case now && !was:
		p.asleep, p.woken = time.Time{}, time.Now()
		a.hello.SetActive(p.Key, true)
		if !p.Keep {
			a.ask(p)
		}
	case was && !now:
		p.asleep = time.Now()
		if !p.Keep {
			a.hello.SetActive(p.Key, false)
		}
		if !a.plan.Self.Hub {
			a.park(p)
		}
	}
	if p.parked && p.active() {
		a.unpark(p)
	}
}

// unpark uses the machine's way again as soon as it is known to work, or when
// nothing better turned up for a while.
func (a *Agent) unpark(p *peer) {
	if p.way.Kind != path.None && !p.machine.Status().Proven && time.Since(p.woken) < unparkAfter {
		return
	}
	p.parked = false
	a.usePath(p)
}

// unparkAfter is how long a relay is waited for before a way is used that was
// not proven for minutes.
const unparkAfter = 2 * time.Second

// park puts a peer without traffic on a relay while there is one: the mapping of
// a direct way goes unnoticed.
func (a *Agent) park(p *peer) {
	if p.way.Kind != path.Direct || len(p.relays) == 0 || p.Keep {
		return
	}
	if w, ok := a.pathOf(p.relays[0].Way); ok {
		p.parked = true
		a.tun().SetPath(p.Key, w, true)
	}
}

// retire gives up the labels of a peer that nobody talks to, and takes the path
// away, so that the next handshake waits for a way that works.
func (a *Agent) retire(p *peer, now time.Time) {
	if p.machine == nil || p.Keep || p.active() || p.asleep.IsZero() || now.Sub(p.asleep) < labelsFor || !p.asking {
		return
	}
	p.asking = false
	a.book.Ask(p.Key, nil)
	if len(a.hubs) > 0 {
		p.parked = true
		a.tun().SetPath(p.Key, Path{}, false)
	}
}

func (a *Agent) do(p *peer, act path.Action) {
	switch act := act.(type) {
	case path.Use:
		a.changes[act.Cause].Add(1)
		a.use(p, act.Way)
	case path.Announce:
		a.announce(p, act.Call)
	case path.OpenSockets:
		a.openSockets(p, act.N)
	case path.CloseSockets:
		a.closeSockets(p, act.Keep)
	case path.SetMTU:
		a.setMTU(p, act.MTU)
	case path.Handshake:
		a.tun().Handshake(p.Key)
	case path.Silent:
		a.suspect(p)
	}
}

// suspectGap is the least time between two checks of a hub that others ask for.
const suspectGap = time.Second

// suspect has the hubs checked together with a path that fell silent: the relay
// that is to take over must not be found dead only then.
func (a *Agent) suspect(p *peer) {
	if p.Keep {
		return
	}
	now := time.Now()
	for _, h := range a.hubs {
		if h.active() && now.Sub(h.suspected) > suspectGap && now.Sub(latest(h.last.Heard, h.carried.Heard)) > sampleEvery {
			h.suspected = now
			a.later = append(a.later, func() { a.step(h, path.Suspect{}) })
		}
	}
}

// use makes a way the peer's path.
func (a *Agent) use(p *peer, w path.Way) {
	was := p.way
	p.way, p.parked = w, false
	a.log.Debug("path", "gateway", p.Gateway, "node", p.Node, "from", a.words(was), "to", a.words(w))
	a.usePath(p)
	if p.Keep {
		// A hub takes relay frames of ours from a new place only when it has sent
		// something there: have it answer.
		a.call(p)
	}
	if was.Kind == path.None || !p.remote.CanProbe || p.Keep {
		a.hello.Resend(p.Key) // what was said before may not have got there
	}
	if p.Keep {
		p.unsure = true
		if was.Kind == path.Direct && w.Kind != path.Direct {
			a.discover("UDP to a hub fell silent")
		}
		a.later = append(a.later, func() { a.refreshSessions(time.Now()); a.offerAll() })
	} else if was.Kind == path.Direct && w.Kind != path.Direct && w.Kind != path.None {
		a.discover("a direct path died")
	}
}

// words says a way without its label, which is a secret of two.
func (a *Agent) words(w path.Way) string {
	if w.Kind != path.Relay {
		return w.String()
	}
	if h := a.peers[w.Hub]; h != nil {
		return "relay via " + h.Node
	}
	return "relay"
}

func (a *Agent) usePath(p *peer) {
	w, ok := a.pathOf(p.way)
	if !ok {
		w = Path{}
	}
	a.tun().SetPath(p.Key, w, ok)
}

// pathOf turns a way into a path; false for none, and a stream that is gone.
func (a *Agent) pathOf(w path.Way) (Path, bool) {
	switch w.Kind {
	case path.Direct:
		return Path{To: w.To, Socket: w.Socket}, true
	case path.Relay:
		return Path{Via: w.Hub, Label: w.Label}, true
	case path.Stream:
		for _, h := range a.hubs {
			if h.conn != nil && h.number == w.Stream {
				return Path{Stream: h.conn}, true
			}
		}
	}
	return Path{}, false
}

func (a *Agent) setMTU(p *peer, mtu int) {
	if p.mtu == mtu {
		return
	}
	p.mtu, p.mtuAt = mtu, time.Now()
	a.mtuNews = true
}

// mtuSettles is how long an MTU must stay before anybody is told: what a search
// goes through would be remembered by every sender for minutes.
const mtuSettles = time.Second

// tellMTUs shows the MTUs of all paths to others.
func (a *Agent) tellMTUs() {
	if !a.mtuNews {
		return
	}
	a.mtuNews = false
	now, changed := time.Now(), false
	all := make(map[key.Public]int)
	for k, p := range a.peers {
		switch {
		case p.mtu == p.shownMTU:
		case p.mtu != 0 && now.Sub(p.mtuAt) < mtuSettles:
			a.mtuNews = true
		default:
			p.shownMTU, changed = p.mtu, true
			if p.machine != nil && p.Keep && p.mtu != 0 {
				a.introduce(p) // a hub does not probe the path that we choose
			}
		}
		if p.shownMTU != 0 {
			all[k] = p.shownMTU
		}
	}
	if old := *a.mtus.Load(); changed || len(old) != len(all) {
		a.mtus.Store(&all)
		a.cfg.Changed()
	}
}

// MTUs returns the inner MTU in bytes of every path where it was measured. The
// map must not be changed.
func (a *Agent) MTUs() map[key.Public]int { return *a.mtus.Load() }

func (a *Agent) openSockets(p *peer, n int) {
	sockets, err := a.tun().OpenSockets(n, false)
	a.later = append(a.later, func() {
		if err != nil {
			a.step(p, path.SocketsRefused{Err: err.Error()})
			return
		}
		p.sockets = append(p.sockets, sockets...)
		a.step(p, path.SocketsOpened{Sockets: sockets})
	})
}

// closeSockets closes the further sockets of p but one: those of others stay.
func (a *Agent) closeSockets(p *peer, keep uint32) {
	if len(p.sockets) == 0 {
		return
	}
	p.sockets = slices.DeleteFunc(p.sockets, func(s uint32) bool { return s != keep })
	a.keepSockets()
}

// probes are the probes of one step, sent together.
type probes struct {
	peer *peer
	raw  []Raw
	sent []path.SendProbe
}

func (b *probes) add(a *Agent, s path.SendProbe) {
	w, ok := a.pathOf(s.Way)
	if !ok || !b.peer.remote.CanProbe {
		return
	}
	data, err := stun.AppendProbe(nil, stun.Probe{
		Tx: stun.TxID(s.Tx), To: b.peer.probeID, From: a.probeID, Size: s.Size,
	}, b.peer.probeKey)
	if err != nil || !a.inbox.expect(stun.TxID(s.Tx), flight{peer: b.peer.Key, purpose: forMachine, at: time.Now()}) {
		return
	}
	if s.Way.Kind == path.Relay {
		a.carry(s.Way.Hub, 1, 0, time.Time{})
	}
	b.raw = append(b.raw, Raw{Path: w, Data: data, TTL: s.TTL, DF: s.DF})
	b.sent = append(b.sent, s)
}

func (b *probes) send(a *Agent) {
	if len(b.raw) == 0 {
		return
	}
	for _, e := range a.tun().SendRaw(b.raw) {
		if s := b.sent[e.Index]; errors.Is(e.Err, syscall.EMSGSIZE) {
			p := b.peer
			a.later = append(a.later, func() { a.step(p, path.TooBig{Way: s.Way, Size: s.Size}) })
		}
	}
	b.raw, b.sent = nil, nil
}

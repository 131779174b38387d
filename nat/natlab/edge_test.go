package natlab_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"corax/dataplane/key"
	"corax/nat/natlab"
	"corax/nat/path"
)

// edge is the least owner of path machines that there can be: one machine per
// peer and hub, and what the real agent does around them.
type edge struct {
	s     *sim
	id    int
	key   key.Public
	site  *site
	host  *natlab.Host
	ifc   *natlab.Interface
	socks map[uint32]*natlab.Socket
	extra uint32 // number of the last further socket
	peers map[int]*peer
	links []*link
	local path.Local
	stun  *stunRound
	dead  bool
}

// link is an edge's session with a hub.
type link struct {
	h      *hub
	p      *peer
	stream *natlab.Stream
	number uint64 // of the stream
	rtt    time.Duration
	asked  time.Time
	heard  time.Time
	mapped netip.AddrPort // our address, as the hub's answers show it
	unsure bool           // nothing was heard from the hub since its path changed
}

// peer is one end of a pair, or an edge's end of a session with a hub.
type peer struct {
	e      *edge
	id     int
	hub    *link // set: the peer is a hub
	m      *path.Machine
	way    path.Way
	timer  *natlab.Timer
	remote path.Remote

	sent, received uint64
	heard, wanted  time.Time
	active         time.Time
	sampling       bool
	relays         []path.RelayWay
	mtu            int
	opened         []uint32 // further sockets
	traffic        traffic
	changes        []change
}

// change is a Use that the machine asked for.
type change struct {
	at       time.Time
	from, to path.Way
}

// hello is what a peer tells another.
type hello struct {
	remote path.Remote
	call   bool
}

// addEdge adds a host with an agent to a site. It uses the given hubs.
func (s *sim) addEdge(st *site, access natlab.Link, hubs ...*hub) *edge {
	e := &edge{s: s, site: st, socks: make(map[uint32]*natlab.Socket), peers: make(map[int]*peer)}
	e.id, e.key = s.identity()
	e.host, e.ifc = st.addHost(access)
	s.edges = append(s.edges, e)
	e.socks[0] = e.listen(0, tunnelPort)
	for i, h := range hubs {
		l := &link{h: h, number: uint64(i + 1)}
		l.p = e.addPeer(h.id, h.key, l)
		e.links = append(e.links, l)
	}
	e.networkChanged("start")
	for _, l := range e.links {
		l.p.step(path.RemoteChanged{Remote: path.Remote{Hub: true, Candidates: []path.Candidate{
			{Kind: path.Configured, Addr: netip.AddrPortFrom(l.h.addr, tunnelPort)},
		}}})
		e.dial(l)
		l.p.want()
		e.keepalive(l)
	}
	return e
}

func (e *edge) addPeer(id int, k key.Public, l *link) *peer {
	p := &peer{e: e, id: id, hub: l, m: path.New(path.Config{
		Self: e.key, Peer: k, Rand: rand.New(rand.NewPCG(e.s.lab.Rand().Uint64(), e.s.lab.Rand().Uint64())),
	})}
	e.peers[id] = p
	p.step(path.LocalChanged{Local: e.local})
	return p
}

// connect makes two edges peers.
func connect(a, b *edge) (*peer, *peer) {
	pa, pb := a.addPeer(b.id, b.key, nil), b.addPeer(a.id, a.key, nil)
	for _, p := range []*peer{pa, pb} {
		p.updateRelays()
		p.e.s.lab.After(25*time.Second, p.heartbeat)
	}
	return pa, pb
}

func (e *edge) listen(number uint32, port uint16) *natlab.Socket {
	s := e.host.Listen(port, func(_ time.Time, d natlab.Datagram) {
		e.receive(path.Way{Kind: path.Direct, To: d.From, Socket: number}, nil, d.Data)
	})
	s.OnTooBig(func(_ time.Time, to netip.AddrPort, mtu int) {
		// The kernel remembers; with DF as probes set it, nobody is told.
	})
	return s
}

// step gives the machine an event and does what it asks for.
func (p *peer) step(ev path.Event) {
	if p.e.dead {
		return
	}
	lab := p.e.s.lab
	for _, a := range slices.Clone(p.m.Step(lab.Now(), ev)) {
		p.do(a)
	}
	p.timer.Stop()
	if at := p.m.Deadline(); !at.IsZero() {
		p.timer = lab.After(at.Sub(lab.Now()), func() { p.step(path.Tick{}) })
	}
}

func (p *peer) do(a path.Action) {
	e := p.e
	switch a := a.(type) {
	case path.SendProbe:
		b := append(head(pktProbe, e.id, p.id), a.Tx[:]...)
		if len(b) < a.Size {
			b = append(b, make([]byte, a.Size-len(b))...)
		}
		if _, tooBig := errors.AsType[*natlab.TooBigError](p.send(a.Way, b, a.TTL, a.DF)); tooBig {
			e.s.lab.After(0, func() { p.step(path.TooBig{Way: a.Way, Size: a.Size}) })
		}
	case path.Use:
		p.use(a.Way)
	case path.Announce:
		e.announce(p, a.Call)
	case path.OpenSockets:
		e.openSockets(p, a.N)
	case path.CloseSockets:
		e.closeSockets(p, a.Keep)
	case path.SetMTU:
		p.mtu = a.MTU
	case path.Silent:
		if p.hub == nil {
			for _, l := range e.links {
				e.s.lab.After(0, func() { l.p.step(path.Suspect{}) })
			}
		}
	case path.Handshake:
		if p.hub != nil {
			e.sendKeepalive(p.hub)
		}
	default:
		panic(fmt.Sprintf("unknown action %T", a))
	}
}

func (p *peer) use(w path.Way) {
	e := p.e
	e.s.lab.Tracef("edge%d: peer %d: use %v (was %v)", e.id, p.id, w, p.way)
	p.changes = append(p.changes, change{e.s.lab.Now(), p.way, w})
	was := p.way
	p.way = w
	if p.hub != nil {
		p.hub.unsure = true
		e.sendKeepalive(p.hub)
		if was.Kind == path.Direct {
			e.discover() // UDP may be blocked
		}
		for _, q := range e.edgePeers() {
			q.updateRelays()
		}
	} else if was.Kind == path.Direct && w.Kind != path.Direct {
		e.discover() // a direct way died: the NAT may be another
	}
}

func (e *edge) openSockets(p *peer, n int) {
	e.s.lab.Tracef("edge%d: peer %d: opens %d sockets", e.id, p.id, n)
	var numbers []uint32
	for range n {
		e.extra++
		e.socks[e.extra] = e.listen(e.extra, 0)
		numbers = append(numbers, e.extra)
	}
	p.opened = append(p.opened, numbers...)
	e.s.lab.After(0, func() { p.step(path.SocketsOpened{Sockets: numbers}) })
}

func (e *edge) closeSockets(p *peer, keep uint32) {
	p.opened = slices.DeleteFunc(p.opened, func(n uint32) bool {
		if n == keep {
			return false
		}
		e.socks[n].Close()
		delete(e.socks, n)
		return true
	})
}

// send sends a packet to the peer over a way.
func (p *peer) send(w path.Way, b []byte, ttl int, df bool) error {
	e := p.e
	switch w.Kind {
	case path.Direct:
		if s := e.socks[w.Socket]; s != nil {
			return s.Send(w.To, b, ttl, df)
		}
	case path.Relay:
		for _, l := range e.links {
			if l.h.key == w.Hub {
				return l.relay(w.Label, b, df)
			}
		}
	case path.Stream:
		if l := p.hub; l != nil && l.stream != nil && l.number == w.Stream {
			l.stream.Send(b)
		}
	}
	return nil
}

// relay sends a frame to the hub over the present way to it.
func (l *link) relay(label uint64, b []byte, df bool) error {
	l.p.want()
	l.p.sent++
	l.p.sample()
	f := binary.BigEndian.AppendUint64(head(pktRelay, l.p.e.id, l.h.id), label)
	return l.p.send(l.p.way, append(f, b...), 0, df)
}

// want tells the machine of traffic, once a second.
func (p *peer) want() {
	if now := p.e.s.lab.Now(); p.wanted.IsZero() || now.Sub(p.wanted) > time.Second {
		p.wanted = now
		p.step(path.Wanted{})
	}
}

// sample gives the machine the counters every 100 ms, until nothing has moved
// for two seconds.
func (p *peer) sample() {
	lab := p.e.s.lab
	p.active = lab.Now()
	if p.sampling {
		return
	}
	p.sampling = true
	var tick func()
	tick = func() {
		p.step(path.Traffic{Sent: p.sent, Received: p.received, Heard: p.heard})
		if p.sampling = lab.Now().Sub(p.active) < 2*time.Second; p.sampling {
			lab.After(100*time.Millisecond, tick)
		}
	}
	lab.After(0, tick)
}

// updateRelays offers the machine all relays that work, with their costs.
func (p *peer) updateRelays() {
	if p.hub != nil {
		return
	}
	other := p.e.s.edgeByID(p.id)
	var ways []path.RelayWay
	for _, l := range p.e.links {
		if l.p.way.Kind == path.None {
			continue
		}
		if w, ok := l.wayTo(other); ok {
			ways = append(ways, w)
		}
	}
	if !slices.EqualFunc(ways, p.relays, func(a, b path.RelayWay) bool { return a.Way == b.Way && a.Cost == b.Cost }) {
		p.relays = ways
		p.step(path.RelaysChanged{Relays: ways})
	}
}

// wayTo returns the cheapest relay way over this hub to an edge: the hub
// itself, or another that has a session with it.
func (l *link) wayTo(other *edge) (path.RelayWay, bool) {
	best := path.RelayWay{Cost: -1}
	near := l.rtt
	if l.unsure {
		near += time.Second
	}
	for _, far := range other.links {
		if far.h != l.h && far.h.known {
			continue // this hub knows that the other one is dead
		}
		cost, via, second := near+far.rtt, []key.Public{l.h.key}, 0
		if far.h != l.h {
			cost, via, second = cost+l.h.rtt(far.h)+10*time.Millisecond, append(via, far.h.key), far.h.id
		}
		if best.Cost < 0 || cost < best.Cost {
			best = path.RelayWay{Way: path.Way{Kind: path.Relay, Hub: l.h.key, Label: label(other.id, second)}, Via: via, Cost: cost}
		}
	}
	return best, best.Cost >= 0
}

func (s *sim) edgeByID(id int) *edge {
	for _, e := range s.edges {
		if e.id == id {
			return e
		}
	}
	return nil
}

// edgePeers are the peers that are no hubs, in a fixed order.
func (e *edge) edgePeers() []*peer {
	var out []*peer
	for id := range e.s.ids {
		if p := e.peers[id+1]; p != nil && p.hub == nil {
			out = append(out, p)
		}
	}
	return out
}

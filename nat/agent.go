package nat

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/path"
	"corax/nat/portmap"
	"corax/nat/relay"
	"corax/nat/stun"
)

const (
	// sampleEvery is how often the traffic of active peers is looked at.
	sampleEvery = 100 * time.Millisecond
	// chores are done that often: sessions, costs, what lapses.
	choresEvery = time.Second
	// maxProbes bounds the probes whose MAC is checked, per second.
	maxProbes = 5000
)

// Config says what an Agent works with. All but Log, STUN, Claimed, Heard,
// Changed, Listen, Allowed and Open are required.
type Config struct {
	Log     *slog.Logger
	Private key.Private
	// Conn is bound to the hello port of our overlay address; Run closes it.
	Conn net.PacketConn
	// Port is that of the tunnel sockets.
	Port uint16
	// Prefixes are the addresses of this host, each with the length of its
	// network.
	Prefixes func() []netip.Prefix
	// Gateways are the default routers, best first.
	Gateways func() []netip.Addr
	// STUN returns the servers to ask beside the hubs; nil: none.
	STUN func() []netip.AddrPort
	// Claimed is told when a peer of another domain says something else about who
	// carries the subnets of its domain; nil: nothing any more. It must not block.
	Claimed func(key.Public, *hello.Claims)
	// Heard is told that a peer with a twin said something, each time. It must not
	// block.
	Heard func(key.Public)
	// Changed is called when the MTU of some path is another. It must not block.
	Changed func()
	// Listen opens the listener of the TLS fallback, when this node is a hub;
	// nil: there is none.
	Listen func() (net.Listener, error)
	// Allowed says whether an address may send to us, and be sent to. It is asked
	// again after each SetPlan. It must not block. Nil allows all.
	Allowed func(netip.Addr) bool
	// Open runs f, which opens a UDP socket beside the tunnel's: the discovery and
	// port mapping need some, and do with less when it returns an error. Tests on
	// virtual time refuse them, since it stands still while a socket is read.
	// nil: f is run as it is.
	Open func(f func() error) error
}

// Agent finds and keeps the ways to all peers. New makes one, Run runs it;
// everything else may be called by any goroutine, also before Run.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	self    key.Public
	tunnel  atomic.Pointer[Tunnel]
	inbox   *inbox
	hello   *hello.Exchange
	mapper  *portmap.Mapper
	server  server
	dialers dialers

	stunServer   stun.Server
	isHub        atomic.Bool
	changes      [path.Reasons]atomic.Uint64 // of paths, by cause
	bookCounters atomic.Pointer[[]relay.Counter]
	named        atomic.Pointer[map[netip.Addr]key.Public] // by overlay address
	chatter      atomic.Pointer[map[netip.Addr]*chatter]   // by overlay address
	mtus         atomic.Pointer[map[key.Public]int]
	probeID      stun.ProbeID
	probeKey     stun.ProbeKey

	// What follows is the loop's.
	plan      Plan
	peers     map[key.Public]*peer
	byProbeID map[stun.ProbeID]*peer
	hubs      []*peer // that we keep a session with, cheapest first
	book      *relay.Book
	forwards  uint64 // version of the labels that the tunnel has
	local     path.Local
	discovery discovery
	filter    *filterTest    // under way; nil: none
	helping   []helping      // sockets from which we help others with theirs
	readers   sync.WaitGroup // of further sockets
	limiter   *rate.Limiter
	later     []func() // to do when the present event is done
	calls     uint32   // of all peers: one that was forgotten must see another number
	mtuNews   bool
	measured  map[key.Public]bool // edges whose links are measured, for relaying
	flooded   map[key.Public]time.Duration
	draining  bool
}

// New checks cfg. Nothing is sent before Run.
func New(cfg Config) (*Agent, error) {
	if cfg.Private.IsZero() || cfg.Conn == nil || cfg.Prefixes == nil || cfg.Gateways == nil || cfg.Port == 0 {
		return nil, errors.New("nat: Private, Conn, Port, Prefixes and Gateways are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.STUN == nil {
		cfg.STUN = func() []netip.AddrPort { return nil }
	}
	if cfg.Allowed == nil {
		cfg.Allowed = func(netip.Addr) bool { return true }
	}
	if cfg.Claimed == nil {
		cfg.Claimed = func(key.Public, *hello.Claims) {}
	}
	if cfg.Heard == nil {
		cfg.Heard = func(key.Public) {}
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Open == nil {
		cfg.Open = func(f func() error) error { return f() }
	}
	a := &Agent{
		cfg: cfg, log: cfg.Log.With("component", "nat"), self: cfg.Private.Public(), inbox: newInbox(),
		peers: make(map[key.Public]*peer), byProbeID: make(map[stun.ProbeID]*peer),
		limiter: rate.NewLimiter(maxProbes, maxProbes), flooded: make(map[key.Public]time.Duration),
	}
	a.server.agent, a.server.news, a.dialers.agent = a, make(chan struct{}, 1), a
	a.named.Store(&map[netip.Addr]key.Public{})
	a.chatter.Store(&map[netip.Addr]*chatter{})
	a.mtus.Store(&map[key.Public]int{})
	_, _ = rand.Read(a.probeID[:]) // never fails: see its documentation
	_, _ = rand.Read(a.probeKey[:])
	var err error
	if a.book, err = relay.New(relay.Config{Self: a.self}); err != nil {
		return nil, fmt.Errorf("nat: %w", err)
	}
	refused := a.book.Counters()
	a.bookCounters.Store(&refused)
	a.mapper, err = portmap.New(portmap.Config{
		Log: cfg.Log, Gateways: cfg.Gateways, Port: cfg.Port, Nonce: nonce(cfg.Private), Open: cfg.Open,
		Changed: func() { a.inbox.note(func(n *notes) { n.mapped = true }) },
	})
	if err != nil {
		return nil, fmt.Errorf("nat: %w", err)
	}
	a.hello, err = hello.New(hello.Config{
		Log: cfg.Log, Conn: overheard{cfg.Conn, a}, Self: a.self, PeerOf: a.peerOf, Reachable: a.reachable, Update: a.inbox.helloUpdate,
	})
	if err != nil {
		return nil, fmt.Errorf("nat: %w", err)
	}
	return a, nil
}

// nonce ties port mappings to this node over restarts. It tells nothing of the
// key that it comes from.
func nonce(k key.Private) (n [12]byte) {
	p := k.Public()
	secret, err := k.SharedSecret(p)
	if err != nil {
		return n // random then
	}
	sum := sha256.Sum256(append([]byte("corax port mapping nonce"), secret[:]...))
	copy(n[:], sum[:])
	return n
}

func (a *Agent) peerOf(overlay netip.Addr) (key.Public, bool) {
	k, ok := (*a.named.Load())[overlay]
	return k, ok
}

// reachable reports whether a datagram to the overlay address of k has a way.
func (a *Agent) reachable(k key.Public) bool {
	t := a.tunnel.Load()
	if t == nil {
		return false
	}
	act, ok := (*t).Activity(k)
	return ok && act.Path != Path{}
}

// Run works until ctx is done. It may be called once.
func (a *Agent) Run(ctx context.Context, t Tunnel) error {
	a.tunnel.Store(&t)
	defer a.tunnel.Store(nil)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.hello.Run(ctx) })
	g.Go(func() error { return a.mapper.Run(ctx) })
	g.Go(func() error { return a.server.run(ctx) })
	g.Go(func() error { return a.loop(ctx) })
	g.Go(func() error { return a.dialers.run(ctx) })
	return g.Wait()
}

// tun is the tunnel; only for what Run started.
func (a *Agent) tun() Tunnel { return *a.tunnel.Load() }

func (a *Agent) loop(ctx context.Context) error {
	defer a.readers.Wait()
	defer a.discovery.close()
	sample, chores := time.NewTicker(sampleEvery), time.NewTicker(choresEvery)
	defer sample.Stop()
	defer chores.Stop()
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		if at := a.deadline(); at.IsZero() {
			alarm.Stop()
		} else {
			alarm.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return nil
		case m := <-a.inbox.datagrams:
			a.take(m)
		case <-a.inbox.bell:
			a.read(a.inbox.take())
		case f := <-a.inbox.calls:
			f()
		case now := <-sample.C:
			a.sampleAll(now)
		case now := <-chores.C:
			a.chores(now)
		case <-alarm.C:
			a.tick(time.Now())
		}
		a.finish()
	}
}

// finish does what events left for later, and tells the others what changed.
func (a *Agent) finish() {
	for range 1000 { // never for ever, whatever the machines do
		if len(a.later) == 0 {
			break
		}
		todo := a.later
		a.later = nil
		for _, f := range todo {
			f()
		}
	}
	a.tellRelays()
}

// await has f run in the loop and waits for it.
func (a *Agent) await(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case a.inbox.calls <- func() { f(); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// post has f run in the loop, unless ctx ends first.
func (a *Agent) post(ctx context.Context, f func()) {
	select {
	case a.inbox.calls <- f:
	case <-ctx.Done():
	}
}

// deadline is when some machine wants to be called.
func (a *Agent) deadline() time.Time {
	at := a.discovery.deadline()
	for _, p := range a.peers {
		if !p.deadline.IsZero() && (at.IsZero() || p.deadline.Before(at)) {
			at = p.deadline
		}
	}
	if d := a.book.Deadline(); !d.IsZero() && (at.IsZero() || d.Before(at)) {
		at = d
	}
	return at
}

func (a *Agent) tick(now time.Time) {
	for _, p := range a.peers {
		if !p.deadline.IsZero() && !now.Before(p.deadline) {
			a.step(p, path.Tick{})
		}
	}
	a.book.Expire(now)
	if at := a.discovery.deadline(); !at.IsZero() && !now.Before(at) {
		a.stepDiscovery(stun.Tick{})
	}
}

// read takes in the notes of others.
func (a *Agent) read(n notes) {
	if n.plan != nil {
		a.apply(n.plan)
	}
	if n.network != "" {
		a.networkChanged(n.network)
	}
	if n.mapped {
		a.refreshLocal()
	}
	for k, topics := range n.hello {
		if p := a.peers[k]; p != nil {
			a.heard(p, topics)
		}
	}
	for k := range n.wanted {
		if p := a.peers[k]; p != nil {
			a.wanted(p)
		}
	}
	for k, w := range n.proven {
		if p := a.peers[k]; p != nil {
			a.proven(p, w)
		}
	}
}

// networkChanged starts everything anew that rests on our addresses.
func (a *Agent) networkChanged(why string) {
	a.log.Info("the network changed", "why", why)
	a.refreshLocal()
	for _, p := range a.peers {
		a.step(p, path.NetworkChanged{Why: why})
		p.dialling.next, p.dialling.wait = time.Time{}, 0
	}
	a.mapper.Poke()
	a.discover(why)
}

// check logs what should not happen.
func (a *Agent) check(what string, err error) {
	if err != nil {
		a.log.Error("cannot tell the peers", "what", what, "err", err)
	}
}

package nat

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/path"
	"corax/nat/relay"
)

// node is one gateway node with an Agent on a fake tunnel.
type node struct {
	w    *internet
	name string
	private
	addr    netip.Addr
	addr6   netip.Addr // without a NAT; zero: none
	nat     *fakeNAT
	hub     bool
	relay   bool // of a hub
	cost    time.Duration
	domain  string
	blocked bool // no UDP at all
	down    bool
	linkMTU int // UDP payload that our own link takes; zero: any

	noSockets bool
	tls       string        // of a hub: where its fallback listens
	shape     func(p *Plan) // changes what plan returns; may be nil

	dev     *device
	agent   *Agent
	changed atomic.Int32
	claims  sync.Map // by key: *hello.Claims, as Config.Claimed told
	cancel  context.CancelFunc
	done    chan error
}

type private struct {
	secret key.Private
	key    key.Public
}

func privateOf(name string) private {
	sum := sha256.Sum256([]byte(name))
	k, err := key.ParsePrivate(base64.StdEncoding.EncodeToString(sum[:]))
	if err != nil {
		panic(err)
	}
	return private{k, k.Public()}
}

func (w *internet) add(n *node) *node {
	n.w, n.private = w, privateOf(n.name)
	if n.domain == "" {
		n.domain = n.name
	}
	w.nodes = append(w.nodes, n)
	w.at[n.addr] = n
	if n.nat != nil {
		w.at[n.nat.public] = n
	}
	return n
}

// hub adds a hub that relays; it is not started.
func (w *internet) hub(name string) *node {
	i := byte(len(w.nodes) + 1)
	return w.add(&node{name: name, hub: true, relay: true, addr: netip.AddrFrom4([4]byte{198, 51, 100, i})})
}

// edge adds an edge behind a NAT.
func (w *internet) edge(name string) *node {
	i := byte(len(w.nodes) + 1)
	return w.add(&node{name: name, addr: netip.AddrFrom4([4]byte{10, i, 0, 2}), nat: &fakeNAT{
		public: netip.AddrFrom4([4]byte{203, 0, 113, i}), next: uint16(i) * 977,
		mappings: make(map[mapping]uint16), open: make(map[opening]time.Time),
	}})
}

// dual gives a node an IPv6 address, too, that it tells nobody of.
func (n *node) dual() {
	i := byte(len(n.w.at))
	n.addr6 = netip.AddrFrom16([16]byte{0x26, 0x20, 15: i})
	n.w.at[n.addr6] = n
}

// symmetric adds an edge whose ports nobody can guess.
func (w *internet) symmetric(name string) *node {
	n := w.edge(name)
	n.nat.perDest, n.noSockets = true, true
	return n
}

func (w *internet) named(overlay netip.Addr) (key.Public, bool) {
	for _, n := range w.nodes {
		if n.key.Overlay() == overlay {
			return n.key, true
		}
	}
	return key.Public{}, false
}

// plan is what n is told of all the others.
func (n *node) plan() Plan {
	p := Plan{
		Self:      Self{Gateway: n.domain, Node: n.name, Hub: n.hub, Relay: n.relay},
		Forbidden: []netip.Prefix{key.OverlayPrefix}, MaxMTU: 1408,
	}
	for _, x := range n.w.nodes {
		if x == n {
			continue
		}
		same := x.domain == n.domain
		keep := x.hub && !same && (!n.hub || n.key.Less(x.key)) // of two hubs one chooses the path
		peer := Peer{
			Key: x.key, Gateway: x.domain, Node: x.name, Hub: x.hub, Relay: x.relay, Cost: x.cost,
			SameDomain: same, Keep: keep, Hello: !same,
		}
		if x.hub {
			peer.Endpoint, peer.TLS = netip.AddrPortFrom(x.addr, 4500), x.tls
		}
		p.Peers = append(p.Peers, peer)
	}
	if n.shape != nil {
		n.shape(&p)
	}
	return p
}

// peerIn returns the peer x in p.
func (p *Plan) peer(x *node) *Peer {
	for i := range p.Peers {
		if p.Peers[i].Key == x.key {
			return &p.Peers[i]
		}
	}
	return nil
}

var errNoSockets = errors.New("no sockets in a bubble")

// start runs the node's agent with a plan.
func (n *node) start(p Plan) {
	n.w.t.Helper()
	dev := newDevice(n)
	cfg := Config{
		Private: n.secret, Conn: helloConn{device: dev}, Port: 4500,
		Prefixes: func() []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(n.addr, 24)} },
		Gateways: func() []netip.Addr { return nil },
		Changed:  func() { n.changed.Add(1) },
		Claimed:  func(k key.Public, c *hello.Claims) { n.claims.Store(k, c) },
		Open:     func(func() error) error { return errNoSockets },
	}
	if n.tls != "" {
		cfg.Listen = func() (net.Listener, error) { return net.Listen("tcp", n.tls) }
	}
	a, err := New(cfg)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.mu.Lock()
	n.dev, n.agent, n.down = dev, a, false
	n.w.mu.Unlock()
	n.setPlan(p)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	n.cancel, n.done = cancel, done
	go func() { done <- a.Run(ctx, dev) }()
}

func (n *node) setPlan(p Plan) {
	n.dev.setPeers(p)
	n.agent.SetPlan(p)
}

// kill ends the node without a farewell.
func (n *node) kill() {
	n.w.t.Helper()
	n.w.mu.Lock()
	n.down = true
	n.w.mu.Unlock()
	if n.cancel == nil {
		return
	}
	n.cancel()
	n.cancel = nil
	if err := <-n.done; err != nil {
		n.w.t.Errorf("%s: %v", n.name, err)
	}
}

// lab runs test in a bubble, on a network that build made. All nodes are
// started; what is left of them at the end makes the test fail.
func lab(t *testing.T, build func(w *internet), test func(t *testing.T, w *internet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newInternet(t)
		ctx, cancel := context.WithCancel(context.Background())
		w.ctx = ctx
		build(w)
		for _, n := range w.nodes {
			n.start(n.plan())
		}
		defer func() {
			cancel()
			w.talks.Wait()
			for _, n := range w.nodes {
				n.kill()
			}
		}()
		test(t, w)
	})
}

func (w *internet) node(name string) *node {
	w.t.Helper()
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	w.t.Fatalf("no node %q", name)
	return nil
}

// status is what n's agent says of x.
func (n *node) status(x *node) PeerStatus {
	n.w.t.Helper()
	s, ok := n.agent.Status(n.w.t.Context())[x.key]
	if !ok {
		n.w.t.Fatalf("%s has no status of %s", n.name, x.name)
	}
	return s
}

// in runs f in the agent's loop.
func (n *node) in(f func(a *Agent)) {
	n.w.t.Helper()
	if err := n.agent.await(n.w.t.Context(), func() { f(n.agent) }); err != nil {
		n.w.t.Fatal(err)
	}
}

// ping sends a packet, as a pod does.
func (n *node) ping(x *node) { n.dev.transmit(x.key, []byte("ping"), false) }

// talk has both send every 50 ms until stop is called.
func (n *node) talk(x *node) (stop func()) {
	ctx, cancel := context.WithCancel(n.w.ctx)
	done := make(chan struct{})
	n.w.talks.Go(func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			n.ping(x)
			x.ping(n)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return func() { cancel(); <-done }
}

// via says in a word how n reaches x: "direct", "relay hub", "none".
func (n *node) via(x *node) string {
	p, _ := n.dev.last(x.key)
	return n.w.word(p)
}

func (w *internet) word(p Path) string {
	for _, n := range w.nodes {
		if n.key == p.Via {
			return "relay " + n.name
		}
	}
	switch {
	case p.To.IsValid():
		return "direct"
	case p.Stream != nil:
		return "stream"
	case p == Path{}:
		return "none"
	}
	return fmt.Sprintf("%+v", p)
}

// words are the paths that n's agent set for x since a time.
func (n *node) words(x *node, since time.Time) []string {
	var out []string
	for _, p := range n.dev.paths(x.key, since) {
		out = append(out, n.w.word(p))
	}
	return out
}

func (n *node) reaches(x *node, want string) func() bool {
	return func() bool { return n.via(x) == want }
}

// counter is the value of one of n's counters.
func (n *node) counter(name, reason string) uint64 {
	n.w.t.Helper()
	for _, c := range n.agent.Counters() {
		if c.Name == name && c.Reason == reason {
			return c.Value
		}
	}
	n.w.t.Fatalf("no counter %s %s", name, reason)
	return 0
}

func isDirect(s PeerStatus) bool { return s.Path.Way.Kind == path.Direct && s.Path.Proven }

// labels are those of n's tunnel.
func (n *node) labels() map[uint64]relay.Forward {
	n.dev.mu.Lock()
	defer n.dev.mu.Unlock()
	return n.dev.labels
}

// knows reports whether n has the probe id of x as it is now.
func (n *node) knows(x *node) (ok bool) {
	n.in(func(a *Agent) {
		p := a.peers[x.key]
		ok = p.probeID == x.agent.probeID && p.probeKey == x.agent.probeKey && a.byProbeID[p.probeID] == p
	})
	return ok
}

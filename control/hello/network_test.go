package hello

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"corax/dataplane/key"
)

// network carries datagrams between overlay addresses inside a bubble.
type network struct {
	mu    sync.Mutex
	ports map[netip.Addr]*port
	sent  map[netip.Addr]int // by sender
	// fate returns when each copy of a datagram arrives; none: it is lost.
	fate func(from, to netip.Addr, b []byte) []time.Duration
}

func newNetwork() *network {
	return &network{
		ports: make(map[netip.Addr]*port),
		sent:  make(map[netip.Addr]int),
		fate:  func(_, _ netip.Addr, _ []byte) []time.Duration { return []time.Duration{time.Millisecond} },
	}
}

type datagram struct {
	b    []byte
	from net.Addr
}

// port is a net.PacketConn on the network.
type port struct {
	net.PacketConn // the methods that nobody calls
	n              *network
	addr           netip.Addr
	in             chan datagram
	closed         chan struct{}
	once           sync.Once
}

func (n *network) listen(a netip.Addr) *port {
	p := &port{n: n, addr: a, in: make(chan datagram, 1024), closed: make(chan struct{})}
	n.mu.Lock()
	n.ports[a] = p
	n.mu.Unlock()
	return p
}

func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *port) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-p.closed:
		return 0, nil, net.ErrClosed
	case d := <-p.in:
		return copy(b, d.b), d.from, nil
	}
}

func (p *port) WriteTo(b []byte, to net.Addr) (int, error) {
	dst := to.(*net.UDPAddr).AddrPort().Addr()
	p.n.mu.Lock()
	p.n.sent[p.addr]++
	when := p.n.fate(p.addr, dst, b)
	p.n.mu.Unlock()
	d := datagram{append([]byte(nil), b...), &net.UDPAddr{IP: p.addr.AsSlice(), Port: Port}}
	for _, wait := range when {
		time.AfterFunc(wait, func() { p.n.deliver(dst, d) })
	}
	return len(b), nil
}

func (n *network) deliver(to netip.Addr, d datagram) {
	n.mu.Lock()
	p := n.ports[to]
	n.mu.Unlock()
	if p == nil {
		return
	}
	select {
	case p.in <- d:
	default:
	}
}

// wild loses a third, reorders and duplicates.
func wild(rng *rand.Rand) func(_, _ netip.Addr, _ []byte) []time.Duration {
	return func(_, _ netip.Addr, _ []byte) []time.Duration {
		var out []time.Duration
		for range 1 + rng.IntN(2) {
			if rng.IntN(3) > 0 {
				out = append(out, time.Duration(rng.IntN(400))*time.Millisecond)
			}
		}
		return out
	}
}

// node is one running Exchange.
type node struct {
	*Exchange
	t      *testing.T
	key    key.Public
	port   *port
	cancel context.CancelFunc
	done   chan error

	mu      sync.Mutex
	updates map[Topic]int
}

func peerKey(b byte) key.Public { return key.Public{b, 1} }

// start runs an Exchange that knows the keys 1 to 9.
func (n *network) start(t *testing.T, b byte, change func(*Config)) *node {
	t.Helper()
	k := peerKey(b)
	x := &node{t: t, key: k, port: n.listen(k.Overlay()), done: make(chan error, 1), updates: make(map[Topic]int)}
	cfg := Config{
		Conn: x.port,
		Self: k,
		PeerOf: func(a netip.Addr) (key.Public, bool) {
			for i := byte(1); i < 10; i++ {
				if peerKey(i).Overlay() == a {
					return peerKey(i), true
				}
			}
			return key.Public{}, false
		},
		Update: func(_ key.Public, topic Topic) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.updates[topic]++
		},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if x.Exchange, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	x.cancel = cancel
	go func() { x.done <- x.Run(ctx) }()
	return x
}

func (x *node) stop() {
	x.t.Helper()
	x.cancel()
	if err := <-x.done; err != nil {
		x.t.Errorf("Run: %v", err)
	}
	select {
	case <-x.port.closed:
	default:
		x.t.Error("Run left its connection open")
	}
}

func (x *node) updated(t Topic) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.updates[t]
}

func (x *node) count(name, reason string) uint64 {
	for _, c := range x.Counters() {
		if c.Name == name && c.Reason == reason {
			return c.Value
		}
	}
	x.t.Fatalf("no counter %s %s", name, reason)
	return 0
}

func (x *node) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// count returns how many datagrams x sent.
func (n *network) count(x *node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[x.port.addr]
}

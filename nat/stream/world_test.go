package stream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"corax/dataplane/key"
)

// world is a hub, whose listener is a channel of pipes. It belongs in a synctest
// bubble, which also finds goroutines that are left.
type world struct {
	t       *testing.T
	private key.Private
	server  *Server
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
	known   map[key.Public]bool
	outside map[netip.Addr]bool // that may not connect

	mu     sync.Mutex
	events []string
	got    [][]byte
	conn   *Conn // the newest
	reply  bool
}

func newPrivate(t testing.TB) key.Private {
	t.Helper()
	k, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newWorld starts a hub that knows the given keys.
func newWorld(t *testing.T, l limits, known ...key.Private) *world {
	t.Helper()
	w := &world{
		t: t, private: newPrivate(t), conns: make(chan net.Conn), closed: make(chan struct{}),
		known: make(map[key.Public]bool), outside: make(map[netip.Addr]bool),
	}
	for _, k := range known {
		w.known[k.Public()] = true
	}
	s, err := New(Config{
		Private: w.private, Known: w.isKnown, Allowed: w.isAllowed, Listener: w, MaxStreams: 2,
		Opened: func(c *Conn) { w.event("opened", c) }, Closed: func(c *Conn) { w.event("closed", c) },
		Receive: w.receive,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.gate = newGate(l)
	w.server = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
		if n := len(s.gate.all) + len(s.gate.pending) + len(s.streams); n != 0 {
			t.Errorf("%d connections are left in the books", n)
		}
	})
	return w
}

func (w *world) isKnown(k key.Public) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[k]
}

func (w *world) isAllowed(a netip.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.outside[a]
}

func (w *world) event(what string, c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, what)
	if what == "opened" {
		w.conn = c
	}
}

func (w *world) receive(c *Conn, datagrams [][]byte) {
	w.mu.Lock()
	for _, d := range datagrams {
		w.got = append(w.got, append([]byte(nil), d...))
	}
	reply := w.reply
	w.mu.Unlock()
	if reply {
		c.Send(datagrams)
	}
}

// Accept, Close and Addr make the world a net.Listener.
func (w *world) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *world) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *world) Addr() net.Addr { return &net.TCPAddr{} }

// pipe connects to the hub from an address.
func (w *world) pipe(from string) (net.Conn, error) {
	near, far := net.Pipe()
	addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 40000))
	select {
	case w.conns <- addressed{far, addr}:
		return near, nil
	case <-w.closed:
		return nil, errors.New("nobody listens")
	}
}

// addressed is a pipe with an address.
type addressed struct {
	net.Conn
	remote net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.remote }

// config is how an edge dials the hub.
func (w *world) config(own key.Private, receive func(*Conn, [][]byte)) DialConfig {
	return DialConfig{
		Private: own, Hub: w.private.Public(), Addr: "192.0.2.1:10280", Proxy: noProxy,
		Dial:    func(context.Context, string, string) (net.Conn, error) { return w.pipe("198.51.100.7") },
		Receive: receive,
	}
}

// edge dials the hub and runs the stream until the test ends; what Run says
// comes from the channel.
func (w *world) edge(own key.Private, receive func(*Conn, [][]byte)) (*Conn, <-chan error) {
	w.t.Helper()
	c, err := Dial(w.t.Context(), w.config(own, receive))
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(context.Background()) }()
	w.t.Cleanup(c.Close)
	synctest.Wait()
	return c, done
}

func (w *world) count(name, reason string) uint64 {
	return value(w.t, w.server.Counters(), name, reason)
}

func value(t *testing.T, list []Counter, name, reason string) uint64 {
	t.Helper()
	for _, c := range list {
		if c.Name == name && c.Reason == reason {
			return c.Value
		}
	}
	t.Fatalf("no counter %s{%s}", name, reason)
	return 0
}

// want checks how many connections were refused for a reason.
func (w *world) want(reason string, n uint64) {
	w.t.Helper()
	synctest.Wait()
	if got := w.count("nat_stream_refused_total", reason); got != n {
		w.t.Errorf("refused{%s} is %d, want %d", reason, got, n)
	}
}

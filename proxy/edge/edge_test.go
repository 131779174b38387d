package edge_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"corax/control"
	"corax/proxy"
	"corax/proxy/edge"
	"corax/proxy/preamble"
)

var (
	front    = netip.MustParseAddr("fd63:6f72:6178::1")
	stranger = netip.MustParseAddr("fd63:6f72:6178::2")
)

// duplex is a connection in memory that can be half closed.
type duplex struct {
	net.Conn          // reads
	out      net.Conn // writes
	from     netip.Addr
}

func (d duplex) Write(b []byte) (int, error)        { return d.out.Write(b) }
func (d duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }
func (d duplex) CloseWrite() error                  { return d.out.Close() }
func (d duplex) Close() error                       { return errors.Join(d.Conn.Close(), d.out.Close()) }

func (d duplex) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.from, 40000))
}

func memory(from netip.Addr) (a, b duplex) {
	ar, bw := net.Pipe()
	br, aw := net.Pipe()
	return duplex{ar, aw, from}, duplex{br, bw, from}
}

// queue is a listener whose connections are put in by hand.
type queue struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newQueue() *queue { return &queue{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}
func (q *queue) Close() error   { q.once.Do(func() { close(q.closed) }); return nil }
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

// call comes in as a stream of the overlay.
func (q *queue) call(from netip.Addr) duplex {
	a, b := memory(from)
	q.conns <- b
	return a
}

// world is an edge in a bubble, with the nodes that it dials.
type world struct {
	*queue
	edge     *edge.Server
	live     *proxy.Live
	counters *proxy.Counters
	log      *bytes.Buffer
	nodes    chan duplex // the nodes' ends of what was dialled
	cancel   context.CancelFunc
	done     chan error
}

func plan() control.Proxy {
	return control.Proxy{
		Edge: true, Callers: []netip.Addr{front}, Ports: []uint16{9100, 10250},
		Nodes: []control.ProxyNode{
			{Name: "a1", Gateway: "edge-a", IP: netip.MustParseAddr("192.168.1.1"), Own: true},
			{Name: "evil", Gateway: "edge-a", IP: netip.MustParseAddr("169.254.169.254"), Own: true},
			{Name: "self", Gateway: "edge-a", IP: netip.MustParseAddr("127.0.0.1"), Own: true},
			{Name: "down", Gateway: "edge-a", IP: netip.MustParseAddr("192.168.1.9"), Own: true},
			{Name: "silent", Gateway: "edge-a", IP: netip.MustParseAddr("192.168.1.10"), Own: true},
			{Name: "b1", Gateway: "edge-b", IP: netip.MustParseAddr("192.168.1.1")},
		},
	}
}

func inBubble(t *testing.T, limits proxy.Limits, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			queue: newQueue(), live: proxy.NewLive(limits), counters: new(proxy.Counters), log: new(bytes.Buffer),
			nodes: make(chan duplex, 10), done: make(chan error, 1),
		}
		var err error
		w.edge, err = edge.New(edge.Config{
			Log: slog.New(slog.NewTextHandler(w.log, nil)), Listener: w.queue, Live: w.live, Counters: w.counters,
			Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
				switch address {
				case "192.168.1.1:10250":
					a, b := memory(front)
					w.nodes <- a
					return b, nil
				case "192.168.1.10:10250":
					<-ctx.Done()
					return nil, ctx.Err()
				default:
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.edge.Apply(plan(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		w.cancel = cancel
		go func() { w.done <- w.edge.Run(ctx) }()
		f(t, w)
		cancel()
		if err := <-w.done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if n := w.live.Len(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

// ask makes a request and reads the answer.
func ask(t *testing.T, c duplex, target proxy.Target) *proxy.Refusal {
	t.Helper()
	b, err := preamble.AppendAsk(nil, target)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = c.Write(b) }()
	r, err := preamble.ReadAnswer(c)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return r
}

func TestServes(t *testing.T) {
	inBubble(t, proxy.Limits{}, func(t *testing.T, w *world) {
		c := w.call(front)
		if r := ask(t, c, proxy.Target{Node: "a1", Port: 10250}); r != nil {
			t.Fatal(r)
		}
		node := <-w.nodes
		go func() { _, _ = c.Write([]byte("ping")) }()
		buf := make([]byte, 4)
		if _, err := io.ReadFull(node, buf); err != nil || string(buf) != "ping" {
			t.Fatalf("the node got %q, %v", buf, err)
		}
		synctest.Wait()
		infos := w.live.List()
		if len(infos) != 1 || infos[0].Target.String() != "a1:10250" || infos[0].Caller.Addr() != front || infos[0].Up != 4 {
			t.Errorf("the registry has %+v", infos)
		}
		_ = c.CloseWrite()
		if _, err := node.Read(buf); !errors.Is(err, io.EOF) {
			t.Fatalf("the node reads %v", err)
		}
		go func() { _, _ = node.Write([]byte("pong")); _ = node.CloseWrite() }()
		if rest, err := io.ReadAll(c); err != nil || string(rest) != "pong" {
			t.Errorf("after the half-close came %q, %v", rest, err)
		}
		synctest.Wait()
		if s := w.counters.Snapshot(); s.Requests["edge"] != 1 || s.Up != 4 || s.Down != 4 {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		from   netip.Addr
		target proxy.Target
		code   proxy.Code
		text   string
	}{
		{"a caller that is no front", stranger, proxy.Target{Node: "a1", Port: 10250}, proxy.CodeCaller, "may not ask"},
		{"a node of nobody", front, proxy.Target{Node: "zz", Port: 10250}, proxy.CodeUnknownNode, "edge-a"},
		{"a node of another domain", front, proxy.Target{Node: "b1", Port: 10250}, proxy.CodeUnknownNode, "b1"},
		{"an address as name", front, proxy.Target{Node: "192.168.1.1", Port: 10250}, proxy.CodeUnknownNode, ""},
		{"a port", front, proxy.Target{Node: "a1", Port: 22}, proxy.CodePort, "22"},
		{"a node with a metadata address", front, proxy.Target{Node: "evil", Port: 10250}, proxy.CodeDial, "169.254.169.254"},
		{"a node with a loopback address", front, proxy.Target{Node: "self", Port: 10250}, proxy.CodeDial, "127.0.0.1"},
		{"a node that refuses", front, proxy.Target{Node: "down", Port: 10250}, proxy.CodeDial, "connection refused"},
		{"a node that is silent", front, proxy.Target{Node: "silent", Port: 10250}, proxy.CodeDial, "10s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, proxy.Limits{}, func(t *testing.T, w *world) {
				for range 3 {
					c := w.call(tt.from)
					r := ask(t, c, tt.target)
					if proxy.CodeOf(r) != tt.code || !strings.Contains(r.Text, tt.text) {
						t.Fatalf("answer %+v", r)
					}
					if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
						t.Errorf("behind the refusal came %q, %v", rest, err)
					}
					_ = c.Close()
				}
				synctest.Wait()
				if n := w.counters.Snapshot().Refused[tt.code]; n != 3 {
					t.Errorf("%d refusals counted", n)
				}
				if n := strings.Count(w.log.String(), "stream refused"); n != 1 {
					t.Errorf("logged %d times:\n%s", n, w.log)
				}
				w.edge.Apply(control.Proxy{}, nil)
				w.edge.Apply(plan(), nil)
				c := w.call(tt.from)
				_ = ask(t, c, tt.target)
				_ = c.Close()
				synctest.Wait()
				if n := strings.Count(w.log.String(), "stream refused"); n != 2 {
					t.Errorf("after a change of the plan logged %d times:\n%s", n, w.log)
				}
			})
		})
	}
}

func TestSlowAndMalformed(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		code     proxy.Code
	}{
		{"nothing", "", proxy.CodeSlow},
		{"half a request", "cxp\x01", proxy.CodeSlow},
		{"HTTP", "GET / HTTP/1.1\r\nHost: a1:10250\r\n\r\n", proxy.CodeMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, proxy.Limits{}, func(t *testing.T, w *world) {
				c := w.call(front)
				go func() { _, _ = c.Write([]byte(tt.in)) }()
				started := time.Now()
				r, err := preamble.ReadAnswer(c)
				if err != nil || r.Code != tt.code {
					t.Fatalf("answer %+v, %v", r, err)
				}
				if d := time.Since(started); d > 5*time.Second {
					t.Errorf("after %v", d)
				}
				_ = c.Close()
			})
		})
	}
}

func TestLimit(t *testing.T) {
	inBubble(t, proxy.Limits{Streams: 4, PerCaller: 2}, func(t *testing.T, w *world) {
		other := netip.MustParseAddr("fd63:6f72:6178::3")
		p := plan()
		p.Callers = append(p.Callers, other)
		w.edge.Apply(p, nil)
		var open []duplex
		for i, from := range []netip.Addr{front, front, front, other} {
			c := w.call(from)
			r := ask(t, c, proxy.Target{Node: "a1", Port: 10250})
			if want := i == 2; want != (proxy.CodeOf(r) == proxy.CodeLimit) {
				t.Errorf("stream %d of %s: %v", i, from, r)
			}
			open = append(open, c)
		}
		splices := w.live.Len()
		if splices != 3 {
			t.Errorf("%d streams are open", splices)
		}
		for _, c := range open {
			_ = c.Close()
		}
		synctest.Wait()
	})
}

// When the edge is switched off, what is open ends at once.
func TestOff(t *testing.T) {
	inBubble(t, proxy.Limits{}, func(t *testing.T, w *world) {
		c, waiting := w.call(front), w.call(front)
		if r := ask(t, c, proxy.Target{Node: "a1", Port: 10250}); r != nil {
			t.Fatal(r)
		}
		node := <-w.nodes
		started := time.Now()
		w.cancel()
		for _, end := range []duplex{c, node, waiting} {
			if _, err := end.Read(make([]byte, 1)); err == nil {
				t.Error("a stream goes on")
			}
		}
		if d := time.Since(started); d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}

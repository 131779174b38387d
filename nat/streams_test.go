package nat

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"corax/nat/path"
	"corax/nat/stream"
)

// loopback runs test with real time and real streams; datagrams go over the fake
// network all the same.
func loopback(t *testing.T, build func(w *internet), test func(t *testing.T, w *internet)) {
	t.Helper()
	t.Parallel()
	w := newInternet(t)
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	build(w)
	for _, n := range w.nodes {
		if n.hub {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			n.tls = l.Addr().String()
			_ = l.Close()
		}
	}
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
	for _, n := range w.nodes {
		soon(t, "the plan is read", func() bool { return len(n.agent.Status(t.Context())) == len(w.nodes)-1 })
	}
	test(t, w)
}

// soon waits until ok says so.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatal("never: " + what)
		}
	}
}

// blockedEdges are two edges that no UDP leaves, and a hub.
func blockedEdges(w *internet) {
	w.hub("hub")
	w.edge("a").blocked = true
	w.edge("b").blocked = true
}

// TestStreams has edges without UDP meet over a hub.
func TestStreams(t *testing.T) {
	loopback(t, blockedEdges, func(t *testing.T, w *internet) {
		hub, a, b := w.node("hub"), w.node("a"), w.node("b")
		for _, x := range []*node{a, b} {
			soon(t, "a session over the stream", func() bool {
				s := x.status(hub)
				return s.Told && s.FirstTLS && s.Path.Way.Kind == path.Stream && s.Path.Proven && hub.via(x) == "stream" && hub.status(x).Told
			})
		}
		defer a.talk(b)()
		soon(t, "a relay", func() bool {
			s := a.status(b)
			return a.via(b) == "relay hub" && b.via(a) == "relay hub" && s.FirstTLS && s.Path.Proven
		})
		n, m := a.dev.got(b.key), b.dev.got(a.key)
		soon(t, "packets", func() bool { return a.dev.got(b.key) >= n+5 && b.dev.got(a.key) >= m+5 })

		// The stream that is open is shown, and stays.
		var conn *stream.Conn
		a.in(func(g *Agent) { conn = g.peers[hub.key].conn })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err := a.agent.Netcheck(ctx)
		if err != nil || len(c.Hubs) != 1 || !c.Hubs[0].TLSOpen || c.Hubs[0].TLSErr != nil {
			t.Errorf("%+v, %v", c, err)
		}
		a.in(func(g *Agent) {
			if h := g.peers[hub.key]; h.conn != conn {
				t.Error("the stream is another one")
			}
		})

		// The hub starts anew: the streams come back.
		hub.kill()
		soon(t, "the stream is gone", func() bool { return a.via(hub) != "stream" || a.status(hub).Path.Proven == false })
		hub.start(hub.plan())
		soon(t, "the plan is read", func() bool { return hub.agent.Status(t.Context()) != nil })
		n = b.dev.got(a.key)
		soon(t, "packets again", func() bool { return b.dev.got(a.key) >= n+5 })
	})
}

// TestStandbyStream has UDP that works: the first hub has a stream ready all the
// same, and only it; a hub dials nobody.
func TestStandbyStream(t *testing.T) {
	loopback(t, func(w *internet) {
		w.hub("hub")
		w.hub("hub2").cost = time.Second
		w.edge("a")
	}, func(t *testing.T, w *internet) {
		hub, hub2, a := w.node("hub"), w.node("hub2"), w.node("a")
		streams := func(n *node) (all []string) {
			n.in(func(g *Agent) {
				for _, h := range g.hubs {
					if h.conn != nil {
						all = append(all, h.Node)
					}
				}
			})
			return all
		}
		soon(t, "sessions and the stream", func() bool {
			return isDirect(a.status(hub)) && isDirect(a.status(hub2)) && len(streams(a)) == 1
		})
		for range 20 { // some hundred looks at who is to be dialled
			for _, n := range []*node{a, hub, hub2} {
				n.in(func(g *Agent) {
					for range 10 {
						g.dial(time.Now())
					}
				})
			}
		}
		if s := strings.Join(streams(a), " "); s != "hub" {
			t.Errorf("streams to %q", s)
		}
		if s := append(streams(hub), streams(hub2)...); len(s) != 0 {
			t.Errorf("hubs have streams to %v", s)
		}
		if a.via(hub) != "direct" {
			t.Errorf("path is %s", a.via(hub))
		}

		// No fallback any more, says the plan.
		p := a.plan()
		p.peer(hub).TLS = ""
		a.setPlan(p)
		soon(t, "no stream", func() bool { return len(streams(a)) == 0 })
		if a.via(hub) != "direct" {
			t.Errorf("path is %s", a.via(hub))
		}
	})
}

// TestListener opens and closes the fallback with the node's part.
func TestListener(t *testing.T) {
	loopback(t, func(w *internet) { w.hub("hub") }, func(t *testing.T, w *internet) {
		hub := w.node("hub")
		open := func() bool {
			c, err := net.Dial("tcp", hub.tls)
			if err != nil {
				return false
			}
			_ = c.Close()
			return true
		}
		soon(t, "it listens", open)
		plan := hub.plan()
		plan.Self.Hub = false
		hub.setPlan(plan)
		soon(t, "it does not", func() bool { return !open() })

		hub.setPlan(hub.plan())
		soon(t, "it listens again", open)
	})
}

// listener is one that nobody calls.
type listener struct {
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l *listener) Close() error              { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr            { return &net.TCPAddr{} }

// TestPortTaken has a hub whose port somebody else has: that is a problem, until
// it has the port.
func TestPortTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet(t).add(&node{name: "hub", hub: true})
		a := newAgent(t, n)
		var tries atomic.Int32
		l := &listener{closed: make(chan struct{})}
		a.cfg.Listen = func() (net.Listener, error) {
			if tries.Add(1) < 3 {
				return nil, errors.New("address in use")
			}
			return l, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx, n.dev) }()
		look := func(after time.Duration, problems int, want int32) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			p, n := a.Problems(), tries.Load()
			if len(p) != problems || n != want || problems == 1 && !strings.Contains(p[0], "address in use") {
				t.Errorf("%d tries, problems %q", n, p)
			}
		}
		look(time.Minute, 0, 0) // no hub
		a.SetPlan(n.plan())
		look(0, 1, 1)
		look(listenAgain, 1, 2)
		edge := n.plan()
		edge.Self.Hub = false
		a.SetPlan(edge)
		look(time.Minute, 0, 2) // an edge has no problem with it
		a.SetPlan(n.plan())
		look(0, 0, 3)
		a.SetPlan(edge)
		look(0, 0, 3)
		select {
		case <-l.closed:
		default:
			t.Error("an edge listens")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestUnknownCallers has somebody dial a hub whom its plan does not name.
func TestUnknownCallers(t *testing.T) {
	loopback(t, func(w *internet) { w.hub("hub") }, func(t *testing.T, w *internet) {
		hub := w.node("hub")
		dial := func() error {
			c, err := stream.Dial(t.Context(), stream.DialConfig{
				Private: privateOf("x").secret, Hub: hub.key, Addr: hub.tls, Receive: func(*stream.Conn, [][]byte) {},
			})
			if err == nil {
				c.Close()
			}
			return err
		}
		soon(t, "it listens", func() bool {
			err := dial()
			if err == nil {
				t.Fatal("a stranger has a stream")
			}
			return errors.Is(err, stream.ErrRefused)
		})
		p := hub.plan()
		p.Peers = append(p.Peers, Peer{Key: privateOf("x").key, Gateway: "x", Hello: true})
		hub.setPlan(p)
		soon(t, "it is let in", func() bool { return dial() == nil })
	})
}

package front

import (
	"context"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"corax/proxy"
	"corax/proxy/splice"
)

const (
	// dialWithin bounds a dial, whatever the dialer thinks.
	dialWithin = 20 * time.Second
	// helloAlone is how long after the node's answer a caller may leave it at its
	// ClientHello. Kubelets wait for hours, and every such stream takes the place of
	// another.
	helloAlone = 30 * time.Second
)

// request is what is known of a request.
type request struct {
	front  string
	target proxy.Target
	user   string
	method string // where TLS ends here
	path   string // likewise; without the query, which may hold content
	plain  bool   // target is an address of the cluster, to be dialled by this host
	hello  bool   // what was read ahead is a ClientHello
}

// stream is a request that is being served.
type stream struct {
	front   *Front
	live    *proxy.Stream
	plain   bool
	silent  func() // ends a stream of which nothing but a ClientHello came; nil: none
	began   time.Time
	dialled time.Time
	first   atomic.Bool
}

// open enters a request into the registry.
func (f *Front) open(a *arrival, r request) (*stream, error) {
	live, err := f.cfg.Live.Open(proxy.StreamInfo{
		Side: proxy.SideFront, Front: r.front, Target: r.target, Caller: a.from,
		User: r.user, Path: r.path, Started: a.began,
	})
	if err != nil {
		return nil, err
	}
	live.BindCaller(a.Conn)
	f.cfg.Counters.Request(r.front)
	return &stream{front: f, live: live, plain: r.plain, began: a.began}, nil
}

// dial connects to the node.
func (s *stream) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	to := s.live.Info().Target
	var c net.Conn
	var err error
	if s.plain {
		c, err = dialPlain(ctx, to)
	} else {
		c, err = s.front.cfg.Dialer.Dial(ctx, to)
	}
	if err != nil {
		return nil, err
	}
	s.dialled = time.Now()
	s.live.BindNode(c)
	if via := s.front.cfg.Via; via != nil {
		s.live.Update(func(i *proxy.StreamInfo) { i.Via = via(c) })
	}
	return c, nil
}

// dialPlain connects to an address of the cluster.
func dialPlain(ctx context.Context, to proxy.Target) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: proxy.Keepalive()}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(to.Node, strconv.Itoa(int(to.Port))))
	if err != nil {
		return nil, &proxy.Refusal{Code: proxy.CodeDial, Text: "node: " + err.Error(), Err: err}
	}
	return c, nil
}

// endSilent has stop called when the caller says nothing beyond its ClientHello for a
// while after the node answered that.
func (s *stream) endSilent(hello int, stop func()) {
	s.silent = func() {
		if s.live.Up.Load() <= uint64(hello) {
			stop()
		}
	}
}

// answered notes that the node said its first byte.
func (s *stream) answered() {
	if s.first.Swap(true) {
		return
	}
	s.front.cfg.Counters.Took(proxy.StageFirst, time.Since(s.dialled))
	if s.silent != nil {
		time.AfterFunc(helloAlone, s.silent) // harmless when the stream has ended
	}
}

// join copies between caller and node until both have ended.
func (s *stream) join(ctx context.Context, caller, node net.Conn) error {
	c := &s.front.cfg
	cfg := splice.Config{Stalls: &c.Counters.Stalls, First: s.answered, Memory: s.live}
	cfg.Up = append(cfg.Up, &s.live.Up, &c.Counters.Up)
	cfg.Down = append(cfg.Down, &s.live.Down, &c.Counters.Down)
	return s.front.pool.Join(ctx, caller, node, cfg)
}

// splice serves a connection of which only the first bytes are known: it connects to
// the node, says so by ready, passes on what was read ahead, and copies. An error
// says that nothing was connected, and the caller is still to be answered.
func (f *Front) splice(ctx context.Context, a *arrival, caller net.Conn, r request, ahead []byte, ready func() error) error {
	s, err := f.open(a, r)
	if err != nil {
		return err
	}
	defer s.live.Close()
	a.leave()
	f.cfg.Counters.Took(proxy.StageRequest, time.Since(a.began))
	node, err := s.dial(ctx)
	if err != nil {
		return err
	}
	_ = caller.SetDeadline(time.Time{})
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s.live.EndIdle(end)
	if r.hello {
		s.endSilent(len(ahead), func() { end(nil) })
	}
	f.record(s, r, 0, s.run(ctx, caller, node, ahead, ready))
	return nil
}

// run closes both connections.
func (s *stream) run(ctx context.Context, caller, node net.Conn, ahead []byte, ready func() error) error {
	if ready != nil {
		if err := ready(); err != nil {
			_ = caller.Close()
			_ = node.Close()
			return err
		}
	}
	if err := s.send(node, ahead); err != nil {
		_ = caller.Close()
		_ = node.Close()
		return err
	}
	return s.join(ctx, caller, node)
}

// send passes on what was read ahead. It fits what any connection takes at once.
func (s *stream) send(node net.Conn, ahead []byte) error {
	if len(ahead) == 0 {
		return nil
	}
	_ = node.SetWriteDeadline(time.Now().Add(sayWithin))
	n, err := node.Write(ahead)
	s.live.Up.Add(uint64(n))
	s.front.cfg.Counters.Up.Add(uint64(n))
	if err != nil {
		return &splice.EndError{B: true, Op: "write", Err: err}
	}
	return node.SetWriteDeadline(time.Time{})
}

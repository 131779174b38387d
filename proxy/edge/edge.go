package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"corax/control"
	"corax/proxy"
	"corax/proxy/splice"
)

const (
	// askWithin is how long a caller may take to say what it wants, dialWithin how
	// long a node may take to answer.
	askWithin  = 5 * time.Second
	dialWithin = 10 * time.Second
	// turnedAway bounds those who are refused before they have said anything: they
	// are heard out, since a reset would take the answer with it.
	turnedAway = 64
	// noted bounds the refusals that are remembered as logged.
	noted = 256
)

// Config says where a [Server] listens, and what it counts.
type Config struct {
	// Log takes refusals, and a line for each stream that has ended; nil means none.
	Log *slog.Logger
	// Listener is on the overlay address, and is closed by Run.
	Listener net.Listener
	// Dial opens a connection to a node; nil means the host's own TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Live, Counters and Pool are shared with the fronts of the agent; nil means
	// ones of its own.
	Live     *proxy.Live
	Counters *proxy.Counters
	Pool     *splice.Pool
}

// Server is the edge's end of the channel.
type Server struct {
	cfg   Config
	log   *slog.Logger
	audit *slog.Logger // of streams
	plan  atomic.Pointer[plan]
	away  chan struct{} // a token for each caller that is being turned away
	wg    sync.WaitGroup

	mu    sync.Mutex
	noted map[note]bool
	open  map[*served]bool
}

// plan is what the objects allow, ready to be looked up; immutable.
type plan struct {
	callers map[netip.Addr]bool
	ports   map[uint16]bool
	nodes   map[string]netip.Addr
	gateway string
	listed  map[netip.Addr]string
}

// note is a refusal that was logged.
type note struct {
	caller netip.Addr
	code   proxy.Code
}

// New makes a server that refuses everything until Apply was called.
func New(cfg Config) (*Server, error) {
	if cfg.Listener == nil {
		return nil, errors.New("proxy edge: no listener")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		d := &net.Dialer{KeepAliveConfig: proxy.Keepalive()}
		cfg.Dial = d.DialContext
	}
	if cfg.Live == nil {
		cfg.Live = proxy.NewLive(proxy.Limits{})
	}
	if cfg.Counters == nil {
		cfg.Counters = new(proxy.Counters)
	}
	if cfg.Pool == nil {
		cfg.Pool = new(splice.Pool)
	}
	s := &Server{
		cfg: cfg, log: cfg.Log.With("component", "proxy-edge"), audit: cfg.Log.With("component", "audit"),
		away: make(chan struct{}, turnedAway), noted: map[note]bool{}, open: map[*served]bool{},
	}
	s.plan.Store(&plan{})
	return s, nil
}

// Apply makes p the plan. Listed has the endpoints of all Gateways, by overlay
// address, with the names of their nodes; it is kept. Streams that are open stay,
// also when their caller may not ask any more, but for those that have lost what they
// are for: see lapsed. It may be called before and while Run runs.
func (s *Server) Apply(p control.Proxy, listed map[netip.Addr]string) {
	next := &plan{listed: listed, callers: map[netip.Addr]bool{}, ports: map[uint16]bool{}, nodes: map[string]netip.Addr{}}
	for _, a := range p.Callers {
		next.callers[a] = true
	}
	for _, port := range p.Ports {
		next.ports[port] = true
	}
	for _, n := range p.Nodes {
		if n.Own {
			next.nodes[n.Name] = n.IP
			next.gateway = n.Gateway
		}
	}
	if !p.Edge {
		next = &plan{listed: listed}
	}
	old := s.plan.Swap(next)
	s.mu.Lock()
	defer s.mu.Unlock()
	for o := range s.open {
		o.judge(next)
	}
	if !old.equal(next) {
		clear(s.noted) // what is refused from now on is news
	}
}

func (p *plan) equal(q *plan) bool {
	return p.gateway == q.gateway && maps.Equal(p.callers, q.callers) && maps.Equal(p.ports, q.ports) && maps.Equal(p.nodes, q.nodes)
}

// Run serves until ctx ends, then breaks off what is open, joins it, and returns
// nil.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { _ = s.cfg.Listener.Close() })
	defer s.wg.Wait()
	defer cancel(proxy.Refuse(proxy.CodeOff, "the edge stops serving streams"))
	defer stop()
	for {
		c, err := s.cfg.Listener.Accept()
		switch {
		case err == nil:
			s.wg.Go(func() { s.serve(ctx, c) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("proxy edge: %w", err)
		default:
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// serve takes one stream from its first byte to its end.
func (s *Server) serve(ctx context.Context, c net.Conn) {
	caller := addrPort(c.RemoteAddr())
	if !s.plan.Load().callers[caller.Addr()] {
		s.turnAway(ctx, c, caller, proxy.Refuse(proxy.CodeCaller, fmt.Sprintf("%s may not ask here", caller.Addr())))
		return
	}
	stream, err := s.cfg.Live.Open(proxy.StreamInfo{Side: proxy.SideEdge, Caller: caller})
	if err != nil {
		s.turnAway(ctx, c, caller, refusal(err))
		return
	}
	defer stream.Close()
	stream.BindCaller(c)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { splice.Abort(c) })
	target, addr, node, r := s.dial(ctx, c)
	if r == nil {
		stream.BindNode(node)
		stream.Update(func(i *proxy.StreamInfo) { i.Target = target })
		r = s.answer(c, nil)
	}
	if r != nil {
		s.refuse(c, caller, target, r)
		stop()
		if node != nil {
			_ = node.Close()
		}
		return
	}
	if !stop() {
		splice.Abort(node)
		return
	}
	s.cfg.Counters.Request("edge")
	defer s.keep(&served{caller: caller.Addr(), target: target, addr: addr, end: cancel})()
	stream.EndIdle(cancel)
	err = s.cfg.Pool.Join(ctx, c, node, splice.Config{
		Up:     []*atomic.Uint64{&stream.Up, &s.cfg.Counters.Up},
		Down:   []*atomic.Uint64{&stream.Down, &s.cfg.Counters.Down},
		Stalls: &s.cfg.Counters.Stalls,
		Memory: stream,
	})
	s.record(stream.Info(), err)
}

// sortedPorts are the ports for messages.
func (p *plan) sortedPorts() []uint16 {
	var all []uint16
	for port := range p.ports {
		all = append(all, port)
	}
	slices.Sort(all)
	return all
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

func refusal(err error) *proxy.Refusal {
	if r, ok := errors.AsType[*proxy.Refusal](err); ok {
		return r
	}
	return &proxy.Refusal{Code: proxy.CodeOf(err), Text: err.Error(), Err: err}
}

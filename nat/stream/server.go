package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"corax/dataplane/key"
)

const (
	// proofTimeout bounds a handshake from the TCP connection to the proof.
	proofTimeout = 5 * time.Second
	// defaultMaxStreams bounds the streams of a server.
	defaultMaxStreams = 2048
	maxAcceptPause    = time.Second
)

// Config is what a Server needs. Opened, Closed and Receive are called from
// goroutines of the server, those of one stream in order (Opened, Receive ...,
// Closed), those of different streams at the same time. They must not block.
type Config struct {
	Log     *slog.Logger // nil means discard
	Private key.Private
	// Known says whether a key is a peer's. Called once a handshake.
	Known func(key.Public) bool
	// Allowed says whether an address may connect; of others nothing is read. Nil
	// allows all.
	Allowed func(netip.Addr) bool
	// Listener is where peers connect; Run closes it.
	Listener net.Listener
	// Opened says that a peer has a stream. A second stream of the same peer takes
	// the place of the first, whose Closed may come after the Opened of the second.
	Opened func(*Conn) // nil means nobody cares
	Closed func(*Conn) // nil means nobody cares
	// Receive gets what a peer sends. The datagrams are valid until it returns.
	Receive func(c *Conn, datagrams [][]byte)
	// MaxStreams bounds the streams; zero means 2048.
	MaxStreams int
	Counts     *Counts // nil means its own
}

// A Server is the hub's end of streams. Its methods are safe for concurrent use.
type Server struct {
	cfg    Config
	log    *slog.Logger
	tls    *tls.Config
	gate   *gate
	counts *Counts
	stores *sync.Pool

	mu      sync.Mutex
	streams map[key.Public]*Conn
}

// New checks the configuration and makes the certificate. It starts nothing.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Private.IsZero():
		return nil, errors.New("stream: no private key")
	case cfg.Known == nil, cfg.Listener == nil, cfg.Receive == nil:
		return nil, errors.New("stream: Known, Listener and Receive are needed")
	case cfg.MaxStreams < 0:
		return nil, fmt.Errorf("stream: at most %d streams", cfg.MaxStreams)
	}
	t, err := serverConfig()
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = defaultMaxStreams
	}
	if cfg.Counts == nil {
		cfg.Counts = new(Counts)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Allowed == nil {
		cfg.Allowed = func(netip.Addr) bool { return true }
	}
	if cfg.Opened == nil {
		cfg.Opened = func(*Conn) {}
	}
	if cfg.Closed == nil {
		cfg.Closed = func(*Conn) {}
	}
	return &Server{
		cfg: cfg, log: cfg.Log.With("component", "stream"), tls: t, gate: newGate(defaultLimits()),
		counts: cfg.Counts, stores: newStores(), streams: make(map[key.Public]*Conn),
	}, nil
}

// Counters returns the values of the server's [Counts].
func (s *Server) Counters() []Counter { return s.counts.Counters() }

// Streams returns a snapshot of every open stream, in no order.
func (s *Server) Streams() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Status, 0, len(s.streams))
	for _, c := range s.streams {
		list = append(list, c.Status())
	}
	return list
}

// Recheck asks Known and Allowed about every open stream, and closes those that
// would not be accepted any more.
func (s *Server) Recheck() {
	s.mu.Lock()
	list := make([]*Conn, 0, len(s.streams))
	for _, c := range s.streams {
		list = append(list, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		s.recheck(c)
	}
}

func (s *Server) recheck(c *Conn) {
	switch {
	case !s.cfg.Known(c.peer):
		s.counts.ended[endKnown].Add(1)
	case !s.cfg.Allowed(c.remote.Addr()):
		s.counts.ended[endAllow].Add(1)
	default:
		return
	}
	c.Close()
}

// Run accepts streams until ctx is cancelled, and returns when all have ended.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.cfg.Listener.Close() })
	defer stop()
	var serving sync.WaitGroup
	err := s.accept(ctx, &serving)
	_ = s.cfg.Listener.Close()
	s.gate.closeAll()
	serving.Wait()
	if err != nil {
		return fmt.Errorf("stream: accept: %w", err)
	}
	return nil
}

func (s *Server) accept(ctx context.Context, serving *sync.WaitGroup) error {
	pause := time.Duration(0)
	for {
		raw, err := s.cfg.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = raw.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // no more descriptors, for example: others will be closed
			s.counts.acceptErrors.Add(1)
			pause = min(max(2*pause, 5*time.Millisecond), maxAcceptPause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		if !s.cfg.Allowed(addrPort(raw.RemoteAddr()).Addr()) {
			s.counts.refused[refuseAllow].Add(1)
			reset(raw)
			continue
		}
		t, why, ok := s.gate.enter(time.Now(), raw)
		if !ok {
			s.counts.refused[why].Add(1)
			_ = raw.Close()
			continue
		}
		serving.Go(func() { s.serve(ctx, t) })
	}
}

// reset ends a connection without a word, and leaves no state of it behind.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// serve takes one connection from its first byte to its end.
func (s *Server) serve(ctx context.Context, t *ticket) {
	defer s.gate.leave(t)
	defer func() { _ = t.conn.Close() }()
	c, err := s.handshake(ctx, t.conn)
	evicted := s.gate.settle(t)
	if err != nil {
		if ctx.Err() == nil {
			s.refuse(t, err, evicted)
		}
		return
	}
	if !s.adopt(c) {
		s.counts.refused[refuseFull].Add(1)
		return
	}
	s.counts.accepted.Add(1)
	s.log.Info("stream open", "peer", c.peer, "endpoint", c.remote)
	s.cfg.Opened(c)
	s.recheck(c) // it was not among the open ones until now
	err = c.run()
	s.forget(c)
	s.cfg.Closed(c)
	s.log.Info("stream ended", "peer", c.peer, "endpoint", c.remote, "err", err)
}

func (s *Server) handshake(ctx context.Context, raw net.Conn) (*Conn, error) {
	if err := raw.SetDeadline(time.Now().Add(proofTimeout)); err != nil {
		return nil, err
	}
	tune(raw)
	c := tls.Server(raw, s.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	exporter, err := export(c)
	if err != nil {
		return nil, err
	}
	peer, err := proveHub(c, s.cfg.Private, s.cfg.Known, exporter)
	if err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return newConn(c, raw, peer, options{s.counts, s.cfg.Receive, s.stores}), nil
}

func (s *Server) refuse(t *ticket, err error, evicted bool) {
	why := refuseHandshake
	switch {
	case evicted:
		why = refuseEvicted
	case errors.Is(err, errUnknownKey):
		why = refuseUnknownKey
	case errors.Is(err, errBadMAC):
		why = refuseBadMAC
	case errors.Is(err, os.ErrDeadlineExceeded):
		why = refuseTimeout
	}
	s.counts.refused[why].Add(1)
	s.log.Debug("stream refused", "endpoint", t.conn.RemoteAddr(), "err", err)
}

// adopt makes c the stream of its peer, and reports whether there was room.
func (s *Server) adopt(c *Conn) bool {
	s.mu.Lock()
	old := s.streams[c.peer]
	if old == nil && len(s.streams) >= s.cfg.MaxStreams {
		s.mu.Unlock()
		return false
	}
	s.streams[c.peer] = c
	s.mu.Unlock()
	if old != nil { // its other end may be long gone
		s.counts.ended[endReplaced].Add(1)
		old.Close()
	}
	return true
}

func (s *Server) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[c.peer] == c {
		delete(s.streams, c.peer)
	}
}

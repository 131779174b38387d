package socks

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"corax/dataplane"
	"corax/proxy/datagram"
	"corax/proxy/outbound"
	"corax/proxy/splice"
)

const (
	// maxConns bounds the connections of one listener.
	maxConns = 4096
	// helloTimeout is how long a client has to say what it wants.
	helloTimeout = 10 * time.Second
	halfIdle     = time.Hour
)

// Dialer connects with other domains; *outbound.Dialer is one.
type Dialer interface {
	DialTCP(ctx context.Context, host string, port uint16) (net.Conn, error)
	// Addrs returns the addresses of a host that may be sent to.
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
	// Targets returns where datagrams for an address go.
	// The first is kept for the client of ctx: see [outbound.WithClient].
	Targets(ctx context.Context, network string, at netip.AddrPort) ([]netip.AddrPort, error)
	// ListenUDP makes a socket. Reading from it may fail with ECONNREFUSED in a
	// *net.OpError that has who refused, and goes on then.
	ListenUDP(v6 bool) (net.PacketConn, error)
}

var _ Dialer = (*outbound.Dialer)(nil)

// Config configures a [Server].
type Config struct {
	// Log takes state changes; nil means none.
	Log *slog.Logger
	// Dialer is needed.
	Dialer Dialer
	// Users are passwords by user; empty means that nobody is asked for one.
	Users map[string]string
	// Conns bounds the connections of one listener; zero means 4096, which is the most.
	Conns int
}

// Server serves SOCKS5 and HTTP CONNECT. Its methods may be called from several
// goroutines at once.
type Server struct {
	cfg  Config
	log  *slog.Logger
	pool splice.Pool

	buffers datagram.Pool

	open                               atomic.Int64
	requests, up, down                 atomic.Uint64
	full, malformed, denied, forbidden atomic.Uint64
	failed, datagrams, refused         atomic.Uint64

	lookups chan struct{} // names of datagrams that are being looked up
}

// New makes a Server.
func New(cfg Config) (*Server, error) {
	if cfg.Dialer == nil {
		return nil, errors.New("socks: no dialer")
	}
	if cfg.Conns <= 0 || cfg.Conns > maxConns {
		cfg.Conns = maxConns
	}
	s := &Server{cfg: cfg, log: cfg.Log, lookups: make(chan struct{}, maxLookups)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// ServeSOCKS serves SOCKS5 on ln until ctx ends; then it closes ln, and joins what it
// started.
func (s *Server) ServeSOCKS(ctx context.Context, ln net.Listener) error {
	return outbound.Serve(ctx, ln, s.cfg.Conns, func() { s.full.Add(1) }, s.socks)
}

// Open returns how many connections and associations are open.
func (s *Server) Open() int { return int(s.open.Load()) }

// Counters returns the counters of the Server.
func (s *Server) Counters() []dataplane.Counter {
	const drop = "socks_drop_total"
	return []dataplane.Counter{
		{Name: "socks_open", Value: uint64(s.open.Load())},
		{Name: "socks_requests_total", Value: s.requests.Load()},
		{Name: "socks_bytes_total", Reason: "out", Value: s.up.Load()},
		{Name: "socks_bytes_total", Reason: "in", Value: s.down.Load()},
		{Name: drop, Reason: "full", Value: s.full.Load()},
		{Name: drop, Reason: "malformed", Value: s.malformed.Load()},
		{Name: drop, Reason: "denied", Value: s.denied.Load()},
		{Name: drop, Reason: "forbidden", Value: s.forbidden.Load()},
		{Name: drop, Reason: "failed", Value: s.failed.Load()},
		{Name: drop, Reason: "refused", Value: s.refused.Load()},
		{Name: drop, Reason: "datagram", Value: s.datagrams.Load()},
	}
}

// socks serves one client.
func (s *Server) socks(ctx context.Context, c net.Conn) {
	ctx = outbound.WithClient(ctx, addrPortOf(c.RemoteAddr()).Addr())
	s.open.Add(1)
	defer s.open.Add(-1)
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(helloTimeout))
	if !s.greet(c) {
		return
	}
	cmd, t, err := readRequest(c)
	switch {
	case errors.Is(err, errAddrType):
		s.malformed.Add(1)
		_, _ = c.Write(appendReply(nil, replyBadAddrType, netip.AddrPort{}))
		return
	case err != nil:
		s.malformed.Add(1)
		return
	}
	s.requests.Add(1)
	switch cmd {
	case cmdConnect:
		s.connect(ctx, c, t)
	case cmdAssociate:
		s.associate(ctx, c)
	default:
		s.malformed.Add(1)
		_, _ = c.Write(appendReply(nil, replyBadCommand, netip.AddrPort{}))
	}
}

// greet agrees on a method, and checks the password where there is one.
func (s *Server) greet(c net.Conn) bool {
	methods, err := readGreeting(c)
	if err != nil {
		s.malformed.Add(1)
		return false
	}
	want := byte(methodNone)
	if len(s.cfg.Users) > 0 {
		want = methodPassword
	}
	if !slices.Contains(methods, want) {
		s.denied.Add(1)
		_, _ = c.Write([]byte{version, methodRefused})
		return false
	}
	if _, err := c.Write([]byte{version, want}); err != nil || want == methodNone {
		return err == nil
	}
	user, password, err := readPassword(c)
	if err != nil {
		s.malformed.Add(1)
		return false
	}
	if !s.knows(user, password) {
		s.denied.Add(1)
		_, _ = c.Write([]byte{authVersion, 1})
		return false
	}
	_, err = c.Write([]byte{authVersion, 0})
	return err == nil
}

// knows compares in a time that does not depend on the password.
func (s *Server) knows(user, password string) bool {
	want, ok := s.cfg.Users[user]
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && ok
}

func (s *Server) connect(ctx context.Context, c net.Conn, t target) {
	// The client may take its time from here on; that it leaves is noticed later.
	_ = c.SetDeadline(time.Time{})
	far, err := s.cfg.Dialer.DialTCP(ctx, t.host, t.port)
	if err != nil {
		s.undialled(err)
		_, _ = c.Write(appendReply(nil, replyTo(err), netip.AddrPort{}))
		return
	}
	if _, err := c.Write(appendReply(nil, replyOK, addrPortOf(far.LocalAddr()))); err != nil {
		splice.Abort(far)
		return
	}
	s.join(ctx, c, far)
}

func (s *Server) join(ctx context.Context, c, far net.Conn) {
	_ = s.pool.Join(ctx, c, far, splice.Config{
		Up: []*atomic.Uint64{&s.up}, Down: []*atomic.Uint64{&s.down}, HalfIdle: halfIdle,
	})
}

func (s *Server) undialled(err error) {
	if errors.Is(err, outbound.ErrForbidden) {
		s.forbidden.Add(1)
	} else {
		s.failed.Add(1)
	}
	s.log.Debug("cannot connect", "err", err)
}

// replyTo is the word for an error.
func replyTo(err error) reply {
	switch {
	case errors.Is(err, outbound.ErrForbidden):
		return replyForbidden
	case errors.Is(err, outbound.ErrNoName), errors.Is(err, outbound.ErrNoService), errors.Is(err, syscall.EHOSTUNREACH):
		return replyNoHost
	case errors.Is(err, syscall.ECONNREFUSED):
		return replyRefused
	case errors.Is(err, syscall.ENETUNREACH):
		return replyNoNetwork
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return replyTimeout
	default:
		return replyFailed
	}
}

func addrPortOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case *net.UDPAddr:
		return a.AddrPort()
	default:
		return netip.AddrPort{}
	}
}

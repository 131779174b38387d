package inner

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"corax/dataplane"
	"corax/dataplane/netstack"
	"corax/proxy/splice"
)

// Dialer connects with other domains. An error that is none of ECONNREFUSED, EACCES
// (nothing carries that address), EHOSTUNREACH and a timeout counts as the last but
// one.
type Dialer interface {
	// DialTCP's connection has CloseWrite.
	DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// DialUDP's connection keeps the bounds of datagrams, and fails to read with
	// ECONNREFUSED when the other end has no socket.
	DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// DialPing's connection has messages of a sequence number in two bytes, big-endian,
	// and a payload: echo requests are written, and answers read. It fails to read with
	// ECONNREFUSED, EACCES or EHOSTUNREACH when an ICMP error came back.
	DialPing(ctx context.Context, to netip.Addr) (net.Conn, error)
	// DialDNS connects with the cluster's name server by "tcp" or "udp".
	DialDNS(ctx context.Context, network string) (net.Conn, error)
}

// Config configures a [Handler].
type Config struct {
	// Log takes state changes; nil means none.
	Log *slog.Logger
	// Dialer is needed.
	Dialer Dialer
	// NameServers are the addresses in the namespace whose port 53 is the cluster's
	// name server.
	NameServers []netip.Addr
	// Connections, Flows and Pings bound what is open at once; zero means 384, 96 and
	// 16.
	Connections, Flows, Pings int
}

const (
	// dialTimeout is how long a destination may be silent. The program asks again
	// until its own time is over.
	dialTimeout = 15 * time.Second
	halfIdle    = time.Hour
	dnsPort     = 53
)

// Handler is the handler of a [netstack.Site]. Its goroutines are the Site's.
type Handler struct {
	cfg   Config
	log   *slog.Logger
	pool  splice.Pool
	conns atomic.Int64

	mu    sync.Mutex
	flows map[ends]*flow
	// pingFlows is how many of flows are pings.
	pingFlows int

	accepted, opened, up, down                 atomic.Uint64
	refused, forbidden, silent, noRoute, noAck atomic.Uint64
	full, datagrams, pings                     atomic.Uint64
}

var _ netstack.SiteHandler = (*Handler)(nil)

// New makes a Handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Dialer == nil || cfg.Connections < 0 || cfg.Flows < 0 || cfg.Pings < 0 {
		return nil, errors.New("inner: no dialer, or a limit below zero")
	}
	cfg.Connections, cfg.Flows = cmp.Or(cfg.Connections, 384), cmp.Or(cfg.Flows, 96)
	cfg.Pings = cmp.Or(cfg.Pings, 16)
	h := &Handler{cfg: cfg, log: cfg.Log, flows: map[ends]*flow{}}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h, nil
}

// isDNS reports whether a destination is the name server.
func (h *Handler) isDNS(to netip.AddrPort) bool {
	return to.Port() == dnsPort && slices.Contains(h.cfg.NameServers, to.Addr())
}

// TCP implements [netstack.SiteHandler].
func (h *Handler) TCP(ctx context.Context, a *netstack.Attempt) {
	if h.conns.Add(1) > int64(h.cfg.Connections) {
		h.conns.Add(-1)
		h.full.Add(1)
		return // as a full backlog: it is asked again
	}
	defer h.conns.Add(-1)
	far, err := h.dial(ctx, "tcp", a.To)
	if err != nil {
		h.log.Debug("cannot connect", "to", a.To, "err", err)
		switch r := h.reason(err); {
		case r == 0:
			a.Drop()
		case r == netstack.PortUnreachable:
			a.Refuse()
		default:
			a.Reject(r)
		}
		return
	}
	c, err := a.Accept()
	if err != nil {
		h.noAck.Add(1)
		splice.Abort(far)
		return
	}
	h.accepted.Add(1)
	_ = h.pool.Join(ctx, c, far, splice.Config{Up: []*atomic.Uint64{&h.up}, Down: []*atomic.Uint64{&h.down}, HalfIdle: halfIdle})
}

func (h *Handler) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	switch {
	case h.isDNS(to):
		return h.cfg.Dialer.DialDNS(ctx, network)
	case slices.Contains(h.cfg.NameServers, to.Addr()) && network == "ping":
		return nil, syscall.EACCES // it is no host
	case slices.Contains(h.cfg.NameServers, to.Addr()):
		return nil, syscall.ECONNREFUSED
	case network == "ping":
		return h.cfg.Dialer.DialPing(ctx, to.Addr())
	case network == "udp":
		return h.cfg.Dialer.DialUDP(ctx, to)
	default:
		return h.cfg.Dialer.DialTCP(ctx, to)
	}
}

// reason says what the program is told of an error, counted; zero: nothing.
func (h *Handler) reason(err error) netstack.Reason {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		h.refused.Add(1)
		return netstack.PortUnreachable
	case errors.Is(err, syscall.EACCES):
		h.forbidden.Add(1)
		return netstack.Prohibited
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.Is(err, syscall.ETIMEDOUT), errors.As(err, &timeout) && timeout.Timeout():
		h.silent.Add(1)
		return 0
	default:
		h.noRoute.Add(1)
		return netstack.HostUnreachable
	}
}

// Counters returns the counters of the Handler.
func (h *Handler) Counters() []dataplane.Counter {
	const drop = "run_drop_total"
	return []dataplane.Counter{
		{Name: "run_connections_total", Value: h.accepted.Load()},
		{Name: "run_flows_total", Value: h.opened.Load()},
		{Name: "run_pings_total", Value: h.pings.Load()},
		{Name: "run_bytes_total", Reason: "out", Value: h.up.Load()},
		{Name: "run_bytes_total", Reason: "in", Value: h.down.Load()},
		{Name: drop, Reason: "refused", Value: h.refused.Load()},
		{Name: drop, Reason: "forbidden", Value: h.forbidden.Load()},
		{Name: drop, Reason: "silent", Value: h.silent.Load()},
		{Name: drop, Reason: "unreachable", Value: h.noRoute.Load()},
		{Name: drop, Reason: "not_accepted", Value: h.noAck.Load()},
		{Name: drop, Reason: "full", Value: h.full.Load()},
		{Name: drop, Reason: "datagram", Value: h.datagrams.Load()},
	}
}

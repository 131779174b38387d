package wg

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane"
	"corax/dataplane/internal/udpbatch"
	"corax/dataplane/key"
)

var _ conn.Bind = (*bind)(nil)

// errNoPath is what Send returns for a peer without a path, so that the bytes
// do not count as sent. It is not logged.
var errNoPath = errors.New("wg: peer has no path")

const (
	// keepHandshake is how long a handshake message waits for a path;
	// wireguard-go makes the next one after as long.
	keepHandshake = 5 * time.Second

	// An initiation from an unknown address costs an X25519 in the receive
	// loop. Beyond this rate wireguard-go gets it unopened, with its cookies.
	initiationRate  = 100 // per second
	initiationBurst = 200

	portTries = 16 // to find one port that is free in both families

	// tellEvery is how often Config.Wanted and Config.Proven are told of one peer;
	// tellOther, how soon after that of a packet that came by yet another way.
	tellEvery = time.Second
	tellOther = 100 * time.Millisecond

	// peerPrefix marks our own textual form of an endpoint: the peer itself.
	peerPrefix = "peer:"
)

// bind is wireguard-go's conn.Bind: one port, a socket per family.
type bind struct {
	log     *slog.Logger
	table   *table
	opener  *opener
	limiter *rate.Limiter
	bounds  Bounds
	shakes  *rate.Limiter // nil: wireguard-go gets every handshake message
	gate    *gate
	in      *window
	drops   *drops
	other   func(Datagram)
	wanted  func(key.Public)
	proven  func(key.Public, Path)
	allow   atomic.Pointer[dataplane.AllowTable] // nil: everybody
	relays  relays
	fair    fair
	extras  extras
	feed    *feed
	readers sync.Pool // of *reader, for Inject

	unanswered unanswered

	socks  atomic.Pointer[sockets] // nil while closed
	port   atomic.Uint32
	once6  sync.Once // logs the lack of IPv6
	writes sync.Pool // of *scratch

	mu     sync.Mutex
	handed bool // Open gave the sockets to the device
}

// sockets is one opening of the port. At least one socket is there.
type sockets struct {
	v4, v6 *udpbatch.Conn
	closed chan struct{}
}

func (s *sockets) each(f func(*udpbatch.Conn)) {
	if s.v4 != nil {
		f(s.v4)
	}
	if s.v6 != nil {
		f(s.v6)
	}
}

func (s *sockets) close() error {
	close(s.closed)
	var errs []error
	s.each(func(c *udpbatch.Conn) { errs = append(errs, c.Close()) })
	return errors.Join(errs...)
}

func newBind(log *slog.Logger, t *table, d *drops, cfg *Config) *bind {
	bounds := cfg.Bounds.whole()
	b := &bind{
		log: log, table: t, opener: newOpener(cfg.PrivateKey),
		limiter: rate.NewLimiter(initiationRate, initiationBurst),
		bounds:  bounds,
		gate:    newGate(bounds), in: newWindow(bounds), drops: d,
		other: cfg.Other, wanted: cfg.Wanted, proven: cfg.Proven,
		unanswered: newUnanswered(),
	}
	if n := bounds.Handshakes; n > 0 {
		b.shakes = rate.NewLimiter(rate.Limit(n), max(1, n/5))
	}
	b.fair.relays = &b.relays
	b.extras.open.Store(new(extraMap))
	b.feed = newFeed(b)
	b.readers.New = func() any { return &reader{b: b} }
	b.writes.New = func() any { return &scratch{msgs: make([]udpbatch.Message, 0, bounds.Batch)} }
	return b
}

// listen opens both sockets on port; zero chooses one.
func (b *bind) listen(port uint16) error {
	var errs error
	for range portTries {
		s, err := b.listenOnce(port)
		if err == nil {
			b.port.Store(uint32(s.port()))
			b.socks.Store(s)
			return nil
		}
		errs = err
		if port != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return fmt.Errorf("listen on UDP port %d: %w", port, errs)
}

func (b *bind) listenOnce(port uint16) (*sockets, error) {
	s := &sockets{closed: make(chan struct{})}
	cfg := udpbatch.Config{
		Addr:       netip.AddrPortFrom(netip.IPv4Unspecified(), port),
		PacketInfo: true,
		RecvBuffer: b.bounds.SocketBuffer, SendBuffer: b.bounds.SocketBuffer, Slots: b.bounds.Slots,
	}
	c4, err4 := udpbatch.Listen(cfg)
	switch {
	case err4 == nil:
		s.v4 = c4
		port = c4.LocalAddr().Port()
	case !noFamily(err4):
		return nil, err4
	}
	cfg.Addr = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	c6, err6 := udpbatch.Listen(cfg)
	switch {
	case err6 == nil:
		s.v6 = c6
	case s.v4 != nil && noFamily(err6):
		b.once6.Do(func() { b.log.Info("no IPv6 on the tunnel port", "err", err6) })
	default:
		return nil, errors.Join(err6, s.close())
	}
	return s, nil
}

func (s *sockets) port() uint16 {
	if s.v4 != nil {
		return s.v4.LocalAddr().Port()
	}
	return s.v6.LocalAddr().Port()
}

// noFamily reports whether the error says that the host lacks the family.
func noFamily(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) ||
		errors.Is(err, syscall.EPROTONOSUPPORT)
}

// Open gives the sockets to the device: those that New opened, or new ones
// after a Close or for another port.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.handed {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	s := b.socks.Load()
	if s != nil && port != 0 && port != s.port() {
		b.socks.Store(nil)
		_ = s.close()
		s = nil
	}
	if s == nil {
		if err := b.listen(port); err != nil {
			return nil, 0, err
		}
		s = b.socks.Load()
	}
	b.handed = true
	var fns []conn.ReceiveFunc
	s.each(func(c *udpbatch.Conn) { fns = append(fns, newReceiver(b, c, s.closed).receive) })
	fns = append(fns, b.feed.receiver(s.closed))
	return fns, s.port(), nil
}

// Close closes the sockets that the device has; before Open it does nothing, as
// the device closes once before it opens.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.handed {
		return nil
	}
	b.handed = false
	if s := b.socks.Swap(nil); s != nil {
		return s.close()
	}
	return nil
}

// shut closes the sockets, whoever has them.
func (b *bind) shut() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handed = false
	if s := b.socks.Swap(nil); s != nil {
		return s.close()
	}
	return nil
}

// SetMark is not supported; mark 0 means none.
func (b *bind) SetMark(mark uint32) error {
	if mark == 0 {
		return nil
	}
	return errors.ErrUnsupported
}

// BatchSize returns the number of datagrams per receive and send.
func (b *bind) BatchSize() int { return b.bounds.Batch }

// ParseEndpoint makes the endpoint of a user API "endpoint=" line: our own form
// names the peer, so that the device has that peer's own object; ip:port from
// an operator's `wg set` becomes a path with the first message sent to it.
func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	if text, ok := strings.CutPrefix(s, peerPrefix); ok {
		raw, err := hex.DecodeString(text)
		if err != nil || len(raw) != key.Size {
			return nil, errors.New("wg: not a public key")
		}
		p := b.table.get(key.Public(raw))
		if p == nil {
			return nil, errors.New("wg: unknown peer")
		}
		return p, nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return newSource(way{to: unmap(a)}, 0, nil), nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (b *bind) counters() []dataplane.Counter {
	out := b.drops.list()
	out = append(out, dataplane.Counter{Name: "wg_inbound_resets_total", Value: b.in.resets.Load()})
	out = append(out, b.relays.counters()...)
	s := b.socks.Load()
	if s == nil {
		return out
	}
	if s.v4 != nil {
		out = append(out, s.v4.Counters("wg_udp4")...)
	}
	if s.v6 != nil {
		out = append(out, s.v6.Counters("wg_udp6")...)
	}
	return out
}

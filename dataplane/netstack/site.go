package netstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"corax/dataplane"
	"corax/dataplane/internal/offload"
)

const siteNIC = 1

// A SiteHandler says what becomes of what ends in a [Site]. Its methods may be
// called from several goroutines at once.
type SiteHandler interface {
	// TCP decides on an attempt to connect, and serves the connection. It has a
	// goroutine of its own, and returns soon after ctx ends: the Site waits for it.
	// An attempt that is not decided when it returns gets no answer.
	TCP(ctx context.Context, a *Attempt)
	// UDP takes a datagram. It is called by whoever received the packet, so it does
	// not block.
	UDP(d *Datagram)
	// Echo takes an echo request, as UDP does.
	Echo(e *Echo)
	// Lost tells that the other end has no socket for what [Site.WriteUDP] sent
	// from one address to another.
	Lost(l Lost)
}

// SiteConfig says what a [Site] is connected to.
type SiteConfig struct {
	// Log takes state changes; nil means none.
	Log *slog.Logger
	// MTU in bytes; zero means dataplane.DefaultMTU.
	MTU int
	// Send takes what leaves: the fabric, as from this node's own pods.
	Send dataplane.Sender
	// Handler takes what comes in. It is needed.
	Handler SiteHandler
	// Attempts bounds the TCP connections that are not established yet; zero means
	// 1024. PerSource is for one source address; zero means half of it.
	Attempts, PerSource int
	// Buffers bounds the memory.
	Buffers Buffers
}

func (c *SiteConfig) check() error {
	var errs []error
	if c.MTU == 0 {
		c.MTU = dataplane.DefaultMTU
	}
	if c.MTU < dataplane.MinMTU6 || c.MTU > 65535 {
		errs = append(errs, fmt.Errorf("MTU %d: want %d to 65535", c.MTU, dataplane.MinMTU6))
	}
	if c.Send == nil || c.Handler == nil {
		errs = append(errs, errors.New("nowhere to send packets, or nobody to handle them"))
	}
	if c.Attempts <= 0 {
		c.Attempts = 1024
	}
	if c.PerSource <= 0 {
		c.PerSource = (c.Attempts + 1) / 2
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return errors.Join(append(errs, c.Buffers.check())...)
}

// Site stands in for this node's own subnets where there is no TUN: every address
// that a packet for it has is an address of its one NIC. What comes in goes to the
// [SiteHandler]; programs of this site go out from an address inside these subnets
// through [Site.DialTCP] and [Site.ListenUDP]. It is a stack of its own, so that
// nothing that happens here touches the agent's services.
//
// Which packets come here, and which sources may leave, is the fabric's to say.
// Methods may be called from several goroutines at once.
type Site struct {
	cfg     SiteConfig
	log     *slog.Logger
	link    *link
	stack   *stack.Stack
	tcp     *tcp.Forwarder
	count   counters
	refused limitedICMP
	joiners joiners
	waiting attempts
	pingers pingers
	sockets sync.Map // of netip.AddrPort: *udpSocket, of programs of this site

	ctx     context.Context // of every handler; cancelled by Close
	cancel  context.CancelFunc
	workers sync.WaitGroup

	running atomic.Bool
	// mu keeps the stack alive while a packet is in it, and workers from being
	// started while Close waits for them.
	mu     sync.RWMutex
	closed bool
}

var (
	_ dataplane.Sender = (*Site)(nil)
	_ receiver         = (*Site)(nil)
)

// NewSite makes a Site. As with [New], one that is not run must be closed.
func NewSite(cfg SiteConfig) (*Site, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("netstack: site: %w", err)
	}
	s := &Site{
		cfg:  cfg,
		log:  cfg.Log,
		link: newLink(cfg.MTU, cfg.Buffers.Queue),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv6.NewProtocol, ipv4.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol6, icmp.NewProtocol4},
		}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.waiting.init(cfg.Attempts, cfg.PerSource)
	if err := s.setUp(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("netstack: site: %w", err)
	}
	return s, nil
}

func (s *Site) setUp() error {
	if err := tuneTCP(s.stack, s.cfg.Buffers); err != nil {
		return err
	}
	if err := tuneSite(s.stack); err != nil {
		return err
	}
	if err := s.stack.CreateNIC(siteNIC, s.link); err != nil {
		return fmt.Errorf("create NIC: %s", err)
	}
	// Every destination is ours, and every source: which ones, the fabric says.
	if err := s.stack.SetPromiscuousMode(siteNIC, true); err != nil {
		return fmt.Errorf("promiscuous mode: %s", err)
	}
	if err := s.stack.SetSpoofing(siteNIC, true); err != nil {
		return fmt.Errorf("spoofing: %s", err)
	}
	s.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: siteNIC},
		{Destination: header.IPv6EmptySubnet, NIC: siteNIC},
	})
	// Our own count of attempts is the bound; this one must not be met first.
	s.tcp = tcp.NewForwarder(s.stack, s.cfg.Buffers.Default, 2*s.cfg.Attempts, s.attempted)
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, s.takeTCP)
	s.stack.SetTransportProtocolHandler(udp.ProtocolNumber, s.takeUDP)
	s.stack.SetTransportProtocolHandler(icmp.ProtocolNumber4, s.takeICMP)
	s.stack.SetTransportProtocolHandler(icmp.ProtocolNumber6, s.takeICMP)
	return nil
}

// SetMTU changes the MTU, in bytes.
func (s *Site) SetMTU(mtu int) error {
	if mtu < dataplane.MinMTU6 || mtu > 65535 {
		return fmt.Errorf("netstack: site: MTU %d: want %d to 65535", mtu, dataplane.MinMTU6)
	}
	s.link.SetMTU(uint32(mtu))
	return nil
}

// Run sends what leaves until ctx is done. Then it closes the Site, with its
// connections, waits for the handlers, and returns nil. It can be called once.
func (s *Site) Run(ctx context.Context) error {
	if s.running.Swap(true) {
		return errors.New("netstack: site: Run called twice")
	}
	return newOutput(s.link, s.cfg.Send, &s.count).run(ctx, s.Close)
}

// Go runs f on a goroutine that the Site joins; f returns soon after its ctx ends.
// It reports whether it did: a Site that is being closed starts nothing.
func (s *Site) Go(f func(ctx context.Context)) bool {
	// A handler is called with a packet in the stack, so that mu is held for
	// reading already; a writer that waits would block a second RLock. Close
	// cancels ctx before it asks for mu, and waits for workers after it had it.
	if s.ctx.Err() != nil {
		return false
	}
	s.workers.Go(func() { f(s.ctx) })
	return true
}

// Close ends every connection and joins handlers and gVisor's goroutines. The
// context of Run does the same; closing twice does nothing.
func (s *Site) Close() error {
	s.cancel()
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	s.endWorkers()
	for _, ep := range s.stack.CleanupEndpoints() {
		ep.Abort()
	}
	s.stack.Close()
	s.stack.Wait()
	return nil
}

// endWorkers waits for the handlers. Nothing but an end of the connection ends a
// handshake in gVisor, and one may have begun just now: so it is asked for until
// all of them are over.
func (s *Site) endWorkers() {
	done := make(chan struct{})
	go func() { s.workers.Wait(); close(done) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, ep := range s.stack.RegisteredEndpoints() {
			ep.Abort()
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// Send takes packets for this node's own subnets. It implements
// [dataplane.Sender].
func (s *Site) Send(batch []dataplane.Packet) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		s.count.closed.Add(uint64(len(batch)))
		return
	}
	s.joiners.feed(batch, s)
}

func (s *Site) deliver(p []byte) {
	protocol := header.IPv4ProtocolNumber
	switch {
	case len(p) >= header.IPv6MinimumSize && p[0]>>4 == 6:
		protocol = header.IPv6ProtocolNumber
	case len(p) >= header.IPv4MinimumSize && p[0]>>4 == 4:
	default:
		s.count.malformed.Add(1)
		return
	}
	s.count.rx.Add(1)
	s.lost(p)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)})
	s.link.deliver(protocol, pkt)
	pkt.DecRef()
}

func (s *Site) deliverJoined(w offload.Write) {
	s.count.rx.Add(uint64(w.Count))
	if !s.link.deliverJoined(w) {
		s.count.malformed.Add(uint64(w.Count))
	}
}

// Counters returns the counters of the Site.
func (s *Site) Counters() []dataplane.Counter {
	const drop = "site_drop_total"
	st := s.stack.Stats()
	return []dataplane.Counter{
		{Name: "site_rx_packets_total", Value: s.count.rx.Load()},
		{Name: "site_tx_packets_total", Value: s.count.tx.Load()},
		{Name: "site_tcp_retransmits_total", Value: st.TCP.Retransmits.Value()},
		{Name: drop, Reason: "attempts_full", Value: s.waiting.full.Load()},
		{Name: drop, Reason: "attempts_of_source", Value: s.waiting.source.Load()},
		{Name: drop, Reason: "abandoned", Value: s.waiting.abandoned.Load()},
		{Name: drop, Reason: "malformed", Value: s.count.malformed.Load() + st.IP.MalformedPacketsReceived.Value()},
		{Name: drop, Reason: "closed", Value: s.count.closed.Load()},
		{Name: drop, Reason: "queue_full", Value: s.link.full.Load()},
		{Name: drop, Reason: "ping_replies", Value: s.pingers.dropped.Load()},
		{Name: drop, Reason: "icmp_limit", Value: s.refused.dropped.Load()},
		{Name: drop, Reason: "bad_checksum", Value: st.TCP.ChecksumErrors.Value() + st.UDP.ChecksumErrors.Value()},
	}
}

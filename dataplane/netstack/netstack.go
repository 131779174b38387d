package netstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"corax/dataplane"
)

const (
	overlayNIC = 1
	segmentNIC = 2
)

// Config says what a [Stack] is connected to.
type Config struct {
	// Log takes state changes; nil means none.
	Log *slog.Logger
	// Overlay is the agent's IPv6 overlay address.
	Overlay netip.Addr
	// MTU of the overlay side in bytes; zero means dataplane.DefaultMTU.
	MTU int
	// Send takes what leaves the stack on the overlay side: the fabric.
	Send dataplane.Sender
	// Segment is the VXLAN segment; nil means none.
	Segment stack.LinkEndpoint
	// SegmentAddr is the stack's IPv4 address and prefix on the segment. It is
	// needed with Segment and ignored without.
	SegmentAddr netip.Prefix
	// Buffers bounds the memory.
	Buffers Buffers

	clock tcpip.Clock // of tests; nil: the real one
}

func (c *Config) check() error {
	var errs []error
	if !c.Overlay.Is6() || c.Overlay.Is4In6() {
		errs = append(errs, fmt.Errorf("overlay address %s is not IPv6", c.Overlay))
	}
	if c.MTU == 0 {
		c.MTU = dataplane.DefaultMTU
	}
	if c.MTU < dataplane.MinMTU6 || c.MTU > 65535 {
		errs = append(errs, fmt.Errorf("MTU %d: want %d to 65535", c.MTU, dataplane.MinMTU6))
	}
	if c.Send == nil {
		errs = append(errs, errors.New("nowhere to send packets"))
	}
	if c.Segment != nil && !c.SegmentAddr.Addr().Is4() {
		errs = append(errs, fmt.Errorf("segment address %s is not IPv4", c.SegmentAddr))
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return errors.Join(append(errs, c.Buffers.check())...)
}

// Stack is the agent's own host. Its methods may be called from several
// goroutines at once.
type Stack struct {
	log     *slog.Logger
	overlay netip.Addr
	send    dataplane.Sender
	link    *link
	stack   *stack.Stack
	pings   pings
	count   counters
	joiners joiners

	running atomic.Bool
	// mu keeps the stack alive while a packet is in it.
	mu     sync.RWMutex
	closed bool
}

var _ dataplane.Sender = (*Stack)(nil)

// New makes the stack. gVisor's TCP starts its own goroutines here already, so a
// Stack that is not run must be closed.
func New(cfg Config) (*Stack, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("netstack: %w", err)
	}
	s := &Stack{
		log:     cfg.Log,
		overlay: cfg.Overlay,
		send:    cfg.Send,
		link:    newLink(cfg.MTU, cfg.Buffers.Queue),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv6.NewProtocol, ipv4.NewProtocol, arp.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol6, icmp.NewProtocol4},
			Clock:              cfg.clock,
		}),
	}
	s.pings.init()
	if err := s.setUp(cfg); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("netstack: %w", err)
	}
	return s, nil
}

func (s *Stack) setUp(cfg Config) error {
	if err := tuneTCP(s.stack, cfg.Buffers); err != nil {
		return err
	}
	routes := []tcpip.Route{{Destination: header.IPv6EmptySubnet, NIC: overlayNIC}}
	if err := s.addNIC(overlayNIC, s.link, netip.PrefixFrom(cfg.Overlay, 128)); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	if cfg.Segment != nil {
		if err := s.addNIC(segmentNIC, cfg.Segment, cfg.SegmentAddr); err != nil {
			return fmt.Errorf("segment: %w", err)
		}
		to := tcpip.AddressWithPrefix{Address: address(cfg.SegmentAddr.Addr()), PrefixLen: cfg.SegmentAddr.Bits()}
		routes = append(routes, tcpip.Route{Destination: to.Subnet(), NIC: segmentNIC})
	}
	s.stack.SetRouteTable(routes)
	return nil
}

func (s *Stack) addNIC(id tcpip.NICID, ep stack.LinkEndpoint, p netip.Prefix) error {
	if err := s.stack.CreateNIC(id, ep); err != nil {
		return fmt.Errorf("create NIC: %s", err)
	}
	a := tcpip.ProtocolAddress{
		Protocol:          network(p.Addr()),
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(p.Addr()), PrefixLen: p.Bits()},
	}
	if err := s.stack.AddProtocolAddress(id, a, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("add address %s: %s", p, err)
	}
	return nil
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func network(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// Overlay returns the overlay address.
func (s *Stack) Overlay() netip.Addr { return s.overlay }

// SetMTU changes the MTU of the overlay side, in bytes. Connections notice with
// their next segment.
func (s *Stack) SetMTU(mtu int) error {
	if mtu < dataplane.MinMTU6 || mtu > 65535 {
		return fmt.Errorf("netstack: MTU %d: want %d to 65535", mtu, dataplane.MinMTU6)
	}
	s.link.SetMTU(uint32(mtu))
	return nil
}

// Run sends what leaves the stack until ctx is done. Then it closes the stack,
// with its listeners and connections, waits for all of it, and returns nil. It
// can be called once.
func (s *Stack) Run(ctx context.Context) error {
	if s.running.Swap(true) {
		return errors.New("netstack: Run called twice")
	}
	return newOutput(s.link, s.send, &s.count).run(ctx, s.Close)
}

// Close ends every connection and listener and joins gVisor's goroutines. The
// context of Run does the same; closing twice does nothing.
func (s *Stack) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.pings.close()
	// Close aborts only what is open; connections in TIME-WAIT would keep Wait
	// for a minute.
	for _, ep := range s.stack.CleanupEndpoints() {
		ep.Abort()
	}
	s.stack.Close()
	s.stack.Wait()
	return nil
}

package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// maxRefusals bounds the ICMP errors that a socket keeps until it is read from.
const maxRefusals = 16

// udpSocket is a UDP socket of a [Site]. Unlike gVisor's own adapter it tells whoever
// reads of ICMP port unreachable.
type udpSocket struct {
	*gonet.UDPConn
	s         *Site
	ep        tcpip.Endpoint
	wq        *waiter.Queue
	local     netip.AddrPort
	connected bool
	deadline  deadline

	mu      sync.Mutex
	refused []netip.AddrPort // not yet told
	wake    chan struct{}    // something is in refused
}

func (s *Site) openUDP(from netip.Addr, to *tcpip.FullAddress) (*udpSocket, error) {
	wq := new(waiter.Queue)
	ep, err := s.stack.NewEndpoint(udp.ProtocolNumber, network(from), wq)
	if err != nil {
		return nil, errnoOf(err)
	}
	if err = ep.Bind(tcpip.FullAddress{NIC: siteNIC, Addr: address(from)}); err == nil && to != nil {
		err = ep.Connect(*to)
	}
	local, lerr := ep.GetLocalAddress()
	if err != nil || lerr != nil {
		ep.Close()
		if err == nil {
			err = lerr
		}
		return nil, errnoOf(err)
	}
	c := &udpSocket{
		UDPConn: gonet.NewUDPConn(wq, ep), s: s, ep: ep, wq: wq, connected: to != nil,
		local: addrPort(local.Addr, local.Port), wake: make(chan struct{}, 1),
	}
	s.sockets.Store(c.local, c)
	return c, nil
}

// ListenUDP makes a socket on a port of an address inside this node's own subnets,
// for programs of this site. Its addresses are *net.UDPAddr. Where the other end of a
// datagram has no socket, a later read fails with ECONNREFUSED in a *net.OpError whose
// Addr is that end; the socket goes on.
func (s *Site) ListenUDP(from netip.Addr) (net.PacketConn, error) {
	c, err := s.openUDP(from, nil)
	if err != nil {
		return nil, fmt.Errorf("netstack: listen on UDP %s: %w", from, err)
	}
	return c, nil
}

// DialUDP makes such a socket that is connected to an address.
func (s *Site) DialUDP(_ context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	if !to.IsValid() || from.Is4() != to.Addr().Is4() {
		return nil, fmt.Errorf("netstack: dial UDP %s from %s: not of one family", to, from)
	}
	remote := fullAddress(to)
	c, err := s.openUDP(from, &remote)
	if err != nil {
		return nil, fmt.Errorf("netstack: dial UDP %s: %w", to, err)
	}
	return c, nil
}

// Close closes the socket.
func (c *udpSocket) Close() error {
	c.s.sockets.CompareAndDelete(c.local, c)
	return c.UDPConn.Close()
}

// SetReadDeadline implements net.Conn.
func (c *udpSocket) SetReadDeadline(t time.Time) error {
	c.deadline.set(t)
	return nil
}

// SetDeadline implements net.Conn.
func (c *udpSocket) SetDeadline(t time.Time) error {
	c.deadline.set(t)
	return c.SetWriteDeadline(t)
}

// Read implements net.Conn.
func (c *udpSocket) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

// ReadFrom implements net.PacketConn.
func (c *udpSocket) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	err = c.await(func() (bool, error) {
		if who, ok := c.nextRefused(); ok {
			return true, c.failed(net.UDPAddrFromAddrPort(who), syscall.ECONNREFUSED)
		}
		w := tcpip.SliceWriter(b)
		res, err := c.ep.Read(&w, tcpip.ReadOptions{NeedRemoteAddr: true})
		switch err.(type) {
		case nil:
			n, from = res.Count, net.UDPAddrFromAddrPort(addrPort(res.RemoteAddr.Addr, res.RemoteAddr.Port))
			return true, nil
		case *tcpip.ErrWouldBlock:
			return false, nil
		case *tcpip.ErrConnectionRefused: // gVisor noticed by itself, as we did
			return false, errAgain
		case *tcpip.ErrClosedForReceive, *tcpip.ErrInvalidEndpointState:
			return true, c.failed(nil, net.ErrClosed)
		default:
			return true, c.failed(nil, errnoOf(err))
		}
	})
	return n, from, err
}

// Wait returns when ReadFrom would not wait: nil, unless the deadline has come.
func (c *udpSocket) Wait() error {
	return c.await(func() (bool, error) {
		return c.isRefused() || c.ep.Readiness(readable)&readable != 0, nil
	})
}

const readable = waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr

// errAgain has await look again at once.
var errAgain = errors.New("netstack: look again")

// await calls look until that is done, or the deadline has come.
func (c *udpSocket) await(look func() (done bool, err error)) error {
	entry, ready := waiter.NewChannelEntry(readable)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	late := c.deadline.wait()
	for {
		select {
		case <-late:
			return c.failed(nil, os.ErrDeadlineExceeded)
		default:
		}
		done, err := look()
		if done {
			return err
		}
		if err != nil {
			continue
		}
		select {
		case <-ready:
		case <-c.wake:
		case <-late:
		}
	}
}

func (c *udpSocket) failed(from net.Addr, err error) error {
	return &net.OpError{Op: "read", Net: "udp", Source: c.LocalAddr(), Addr: from, Err: err}
}

func (c *udpSocket) nextRefused() (netip.AddrPort, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.refused) == 0 {
		return netip.AddrPort{}, false
	}
	who := c.refused[0]
	c.refused = c.refused[1:]
	return who, true
}

func (c *udpSocket) isRefused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.refused) > 0
}

// lost notes that an end has no socket.
func (c *udpSocket) lost(who netip.AddrPort) {
	if c.connected {
		if to, err := c.ep.GetRemoteAddress(); err != nil || addrPort(to.Addr, to.Port) != who {
			return
		}
	}
	c.mu.Lock()
	if len(c.refused) < maxRefusals {
		c.refused = append(c.refused, who)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// lost looks for an ICMP error about a datagram of this site: one that a socket or a
// ping connection sent, or that [Site.WriteUDP] did, of which gVisor knows nothing.
func (s *Site) lost(p []byte) {
	l, ok := parseLost(p)
	if !ok {
		s.unanswered(p)
		return
	}
	if c, ok := s.sockets.Load(l.From); ok {
		c.(*udpSocket).lost(l.To)
		return
	}
	s.cfg.Handler.Lost(l)
}

package netstack

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog bounds the connections that wait to be accepted, and those that are
// not complete. Beyond it gVisor answers with SYN cookies, which need no memory;
// gonet's own choice of 4096 costs 20 MB in a flood.
const backlog = 256

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{Addr: address(a.Addr()), Port: a.Port()}
}

// local is a port on the overlay address.
func (s *Stack) local(port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: overlayNIC, Addr: address(s.overlay), Port: port}
}

// DialTCP opens a connection: to an IPv6 address from the overlay address, to an
// IPv4 address of the segment from the segment address. The connection has
// CloseWrite.
func (s *Stack) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if !to.IsValid() {
		return nil, fmt.Errorf("netstack: dial TCP: no address")
	}
	c, err := gonet.DialContextTCP(ctx, s.stack, fullAddress(to), network(to.Addr()))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("netstack: dial TCP %s: %w", to, err)
	}
	return c, nil
}

// ListenTCP listens on a port of the overlay address; zero picks one.
func (s *Stack) ListenTCP(port uint16) (net.Listener, error) {
	fail := func(err tcpip.Error) (net.Listener, error) {
		return nil, fmt.Errorf("netstack: listen on TCP port %d: %s", port, err)
	}
	var wq waiter.Queue
	ep, err := s.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, &wq)
	if err != nil {
		return fail(err)
	}
	if err := ep.Bind(s.local(port)); err != nil {
		ep.Close()
		return fail(err)
	}
	if err := ep.Listen(backlog); err != nil {
		ep.Close()
		return fail(err)
	}
	return gonet.NewTCPListener(s.stack, &wq, ep), nil
}

// DialUDP makes a socket that is connected to an address, as DialTCP does.
func (s *Stack) DialUDP(to netip.AddrPort) (net.Conn, error) {
	if !to.IsValid() {
		return nil, fmt.Errorf("netstack: dial UDP: no address")
	}
	remote := fullAddress(to)
	c, err := gonet.DialUDP(s.stack, nil, &remote, network(to.Addr()))
	if err != nil {
		return nil, fmt.Errorf("netstack: dial UDP %s: %w", to, err)
	}
	return c, nil
}

// ListenUDP makes a socket on a port of the overlay address; zero picks one. Its
// addresses are *net.UDPAddr.
func (s *Stack) ListenUDP(port uint16) (net.PacketConn, error) {
	local := s.local(port)
	c, err := gonet.DialUDP(s.stack, &local, nil, ipv6.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("netstack: listen on UDP port %d: %w", port, err)
	}
	return c, nil
}

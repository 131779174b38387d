package netstack

import (
	"fmt"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
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

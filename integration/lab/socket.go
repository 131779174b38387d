//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dial connects from the host; address is a literal IP and port. It has the
// signature that http.Transport and net.Resolver want.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("lab: dial: %w", err) // a name would be resolved elsewhere
	}
	if d := h.detourTo(to.Addr()); d != nil {
		return d.dial(ctx, network, to)
	}
	return h.dial(ctx, network, address)
}

// dial is Dial without a detour.
func (h *Host) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.Visit(func() (err error) {
		var d net.Dialer
		d.SetMultipathTCP(false)
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: from %s: %w", h.Name, err)
	}
	return conn, nil
}

// DialTCP opens a TCP connection from the host.
func (h *Host) DialTCP(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	c, err := h.Dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// DialUDP makes a UDP socket of the host that is connected to an address.
func (h *Host) DialUDP(to netip.AddrPort) (*net.UDPConn, error) {
	c, err := h.Dial(context.Background(), "udp", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// ListenTCP listens on an address of the host; [::] means both families. The
// listener is closed with the lab, if not before.
func (h *Host) ListenTCP(at netip.AddrPort) (*net.TCPListener, error) {
	var ln net.Listener
	err := h.Do(func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		ln, err = lc.Listen(context.Background(), "tcp", at.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: on %s: %w", h.Name, err)
	}
	h.keep(ln)
	return ln.(*net.TCPListener), nil
}

// ListenUDP makes a UDP socket of the host, bound to an address. It is closed
// with the lab, if not before.
func (h *Host) ListenUDP(at netip.AddrPort) (*net.UDPConn, error) {
	var c net.PacketConn
	err := h.Do(func() (err error) {
		var lc net.ListenConfig
		c, err = lc.ListenPacket(context.Background(), "udp", at.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: on %s: %w", h.Name, err)
	}
	h.keep(c)
	return c.(*net.UDPConn), nil
}

// SetDF sets or clears "don't fragment" for what a socket sends. With it the
// path MTU that the kernel remembers is not enforced, so that each packet that
// is too big meets the router that refuses it; the first link's MTU still is.
// Without it the sender's kernel and, with IPv4, routers fragment.
func SetDF(conn syscall.Conn, df bool) error {
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	v4, v6 := unix.IP_PMTUDISC_DONT, unix.IPV6_PMTUDISC_WANT
	if df {
		v4, v6 = unix.IP_PMTUDISC_PROBE, unix.IPV6_PMTUDISC_PROBE
	}
	var serr error
	err = rc.Control(func(fd uintptr) {
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			serr = err
			return
		}
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, v4)
		if domain != unix.AF_INET6 {
			return
		}
		if errors.Is(serr, unix.ENOPROTOOPT) {
			serr = nil // a raw IPv6 socket sends no IPv4
		}
		serr = errors.Join(serr, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, v6))
	})
	return errors.Join(err, serr)
}

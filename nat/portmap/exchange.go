package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// maxUDP is more than any answer has that we accept, in bytes.
const maxUDP = 2048

// client speaks the protocols. It keeps no state between calls, so that calls
// may run at the same time.
type client struct {
	open    func(func() error) error // see Config.Open
	source6 func() (netip.Addr, error)
	nonce   pcpNonce
	drops   drops
}

// waits are the times to wait after each sending of a UDP request. The routers
// asked are one hop away.
func waits() []time.Duration {
	return []time.Duration{250 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond}
}

// local returns the address that we have towards the gateway. For an IPv6
// gateway, most often known by its link-local address, that is the global
// address that peers will send to.
func (c *client) local(gateway netip.Addr) (netip.Addr, error) {
	if gateway.Is6() {
		return c.source6()
	}
	return c.routedFrom(netip.AddrPortFrom(gateway, 9))
}

// globalSource is the source of what we send to the IPv6 Internet.
func (c *client) globalSource() (netip.Addr, error) {
	to := netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 15: 1}), 9) // only connected to, never sent to
	a, err := c.routedFrom(to)
	if err == nil && !public(a) {
		err = errors.New("no global IPv6 address")
	}
	return a, err
}

func (c *client) routedFrom(to netip.AddrPort) (netip.Addr, error) {
	conn, err := c.dialUDP(netip.Addr{}, to)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone(""), nil
}

func (c *client) dialUDP(from netip.Addr, to netip.AddrPort) (conn *net.UDPConn, err error) {
	var laddr *net.UDPAddr
	if from.IsValid() {
		laddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	err = c.open(func() (err error) {
		conn, err = net.DialUDP("udp", laddr, net.UDPAddrFromAddrPort(to))
		return err
	})
	return conn, err
}

// exchange sends a request and waits for the packet that accept wants; others
// are counted. The socket is connected, so that the kernel drops what comes from
// elsewhere.
func (c *client) exchange(ctx context.Context, from netip.Addr, to netip.AddrPort, req []byte, accept func([]byte) dropReason) error {
	conn, err := c.dialUDP(from, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for _, wait := range waits() {
		if _, err := conn.Write(req); err != nil {
			return exchangeError(ctx, err)
		}
		ok, err := c.await(conn, time.Now().Add(wait), accept)
		if ok || err != nil {
			return exchangeError(ctx, err)
		}
	}
	return ErrSilent
}

// await reads until accept takes a packet or the time is over.
func (c *client) await(conn *net.UDPConn, until time.Time, accept func([]byte) dropReason) (bool, error) {
	if err := conn.SetReadDeadline(until); err != nil {
		return false, err
	}
	buf := make([]byte, maxUDP)
	for {
		n, err := conn.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil
		case err != nil:
			return false, err
		}
		reason := accept(buf[:n])
		if reason == dropNot {
			return true, nil
		}
		c.drops.add(reason)
	}
}

func exchangeError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: the port is closed", ErrNotSpoken)
	}
	return err
}

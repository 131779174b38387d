package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"corax/dataplane/netstack"
	"corax/proxy/splice"
)

const (
	// dialTimeout is how long a destination may be silent. Whoever asks repeats
	// the question until its own time is over, and is dialled again.
	dialTimeout = 10 * time.Second
	// halfIdle ends a connection of which one direction has ended and the other
	// says nothing.
	halfIdle = time.Hour
)

// TCP dials the real destination of an attempt, accepts it when that worked, and
// joins the two. It implements [netstack.SiteHandler].
func (f *Forwarder) TCP(ctx context.Context, a *netstack.Attempt) {
	target, ok := f.decide(a.To.Addr())
	if !ok {
		a.Reject(netstack.Prohibited)
		return
	}
	source := a.From.Addr()
	if r := f.conns.take(source); r != roomYes {
		f.refuse(r)
		return // as a full backlog: it is asked again
	}
	defer f.conns.release(source)
	host, err := f.dial(ctx, netip.AddrPortFrom(target, a.To.Port()))
	if err != nil {
		f.undialled(a, err)
		return
	}
	if err := f.introduce(host, a.From, a.To); err != nil {
		f.count.refused.Add(1)
		splice.Abort(host)
		a.Refuse()
		return
	}
	c, err := a.Accept()
	if err != nil {
		f.count.noAccept.Add(1)
		splice.Abort(host)
		return
	}
	f.count.accepted.Add(1)
	err = f.pool.Join(ctx, c, host, splice.Config{
		Up: []*atomic.Uint64{&f.count.up}, Down: []*atomic.Uint64{&f.count.down},
		Stalls: &f.count.stalls, HalfIdle: halfIdle,
	})
	if err != nil {
		f.log.Debug("connection broken off", "from", a.From, "to", a.To, "err", err)
	}
}

func (f *Forwarder) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3},
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// undialled tells who asks what the destination said.
func (f *Forwarder) undialled(a *netstack.Attempt, err error) {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		f.count.refused.Add(1)
		a.Refuse()
	case unreachable(err):
		f.count.noRoute.Add(1)
		a.Reject(netstack.HostUnreachable)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT), isTimeout(err), errors.Is(err, context.Canceled):
		f.count.silent.Add(1)
		a.Drop()
	default:
		f.count.noSocket.Add(1)
		a.Drop()
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// unreachable reports whether the kernel knows no way, or an ICMP error said so.
func unreachable(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EACCES, syscall.EPERM, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// introduce tells the destination who asks, where it wants to know.
func (f *Forwarder) introduce(host net.Conn, from, to netip.AddrPort) error {
	for _, d := range f.cfg.ProxyProtocol {
		if d.contains(to) {
			_, err := host.Write(appendProxyHeader(nil, from, to))
			return err
		}
	}
	return nil
}

// appendProxyHeader appends the header of a TCP connection: PROXY protocol, version
// 2, section 2.2.
func appendProxyHeader(b []byte, from, to netip.AddrPort) []byte {
	b = append(b, "\r\n\r\n\x00\r\nQUIT\n"...)
	src, dst := from.Addr().Unmap(), to.Addr().Unmap()
	family, size := byte(0x11), byte(12) // TCP over IPv4
	if !src.Is4() {
		family, size = 0x21, 36
	}
	b = append(b, 0x21, family, 0, size) // version 2, command PROXY
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	return append(b, byte(from.Port()>>8), byte(from.Port()), byte(to.Port()>>8), byte(to.Port()))
}

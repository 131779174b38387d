package userns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A socket belongs to the network namespace in which it was made, whoever uses it. So
// the helper makes those of programs outside that want into the tunnel, and everything
// else happens here.

// DialTCP connects from inside the namespace.
func (h *Host) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return h.dial(ctx, kindTCP, to)
}

// DialUDP makes a UDP socket of the namespace that is connected with an address.
func (h *Host) DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return h.dial(ctx, kindUDP, to)
}

// DialPing makes an ICMP socket of the namespace that is connected with an address, for
// echo requests and their answers. net.ipv4.ping_group_range of the namespace decides
// whether there are any.
func (h *Host) DialPing(ctx context.Context, to netip.Addr) (net.Conn, error) {
	return h.dial(ctx, kindPing, netip.AddrPortFrom(to, 0))
}

// ListenUDP makes a UDP socket of the namespace, on a port that the kernel chooses.
func (h *Host) ListenUDP(v6 bool) (net.PacketConn, error) {
	f, err := h.socket(context.Background(), &socketRequest{Kind: kindUDP, V6: v6})
	if err != nil {
		return nil, fmt.Errorf("userns: %w", err)
	}
	defer f.Close()
	any := netip.IPv4Unspecified()
	if v6 {
		any = netip.IPv6Unspecified()
	}
	if err := control(f, func(fd int) error { return unix.Bind(fd, sockaddr(netip.AddrPortFrom(any, 0))) }); err != nil {
		return nil, fmt.Errorf("userns: bind a socket: %w", err)
	}
	return net.FilePacketConn(f)
}

func (h *Host) dial(ctx context.Context, kind socketKind, to netip.AddrPort) (net.Conn, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	f, err := h.socket(ctx, &socketRequest{Kind: kind, V6: to.Addr().Is6()})
	if err != nil {
		return nil, fmt.Errorf("userns: %w", err)
	}
	defer f.Close() // the connection has a descriptor of its own
	if err := connect(ctx, f, to); err != nil {
		return nil, fmt.Errorf("userns: connect with %s: %w", to, err)
	}
	return net.FileConn(f)
}

func (h *Host) socket(ctx context.Context, q *socketRequest) (*os.File, error) {
	fd, _, err := h.call(ctx, &request{Op: opSocket, Socket: q})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// connect connects a socket that does not block.
func connect(ctx context.Context, f *os.File, to netip.AddrPort) error {
	err := control(f, func(fd int) error { return unix.Connect(fd, sockaddr(to)) })
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		if n == 0 || errors.Is(err, unix.EINTR) {
			return false
		}
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if failed = err; err == nil && errno != 0 {
			failed = unix.Errno(errno)
		}
		return true
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, failed)
}

func control(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if e := c.Control(func(fd uintptr) { err = do(int(fd)) }); e != nil {
		return e
	}
	return err
}

func sockaddr(at netip.AddrPort) unix.Sockaddr {
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}
	}
	return &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())}
}

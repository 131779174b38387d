package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoPing says that this process may not have an ICMP socket.
var errNoPing = errors.New("no unprivileged ICMP socket")

// openPing opens a connected ICMP socket, which gets the answers to its own
// requests only: icmp(7), "ping sockets".
func openPing(to netip.Addr) (socket, error) {
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if !to.Is4() {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return nil, fmt.Errorf("%w: %w", errNoPing, err)
	case err != nil:
		return nil, fmt.Errorf("open an ICMP socket: %w", err)
	}
	var addr unix.Sockaddr = &unix.SockaddrInet6{Addr: to.As16()}
	if to.Is4() {
		addr = &unix.SockaddrInet4{Addr: to.As4()}
	}
	if err := unix.Connect(fd, addr); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect an ICMP socket with %s: %w", to, err)
	}
	return os.NewFile(uintptr(fd), "icmp"), nil
}

// probePing says why there are no ICMP sockets; nil: there are.
func probePing() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoPing, err)
	}
	return unix.Close(fd)
}

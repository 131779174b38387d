//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sockets of the traffic processes are raw file descriptors in blocking mode:
// one system call per write or batch, and no poller in between.

func openSocket(kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	return fd, os.NewSyscallError("socket", err)
}

// listen opens a socket that is bound to a port of all IPv4 addresses.
func listen(kind int, port int) (int, error) {
	fd, err := openSocket(kind)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return -1, os.NewSyscallError("bind", err)
	}
	if kind == unix.SOCK_DGRAM {
		// A receiver that is not scheduled for a while loses nothing here.
		const size = 8 << 20
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
		}
		return fd, nil
	}
	return fd, os.NewSyscallError("listen", unix.Listen(fd, 8))
}

// connect opens a socket that is connected to an address.
func connect(kind int, to netip.AddrPort) (int, error) {
	fd, err := openSocket(kind)
	if err != nil {
		return -1, err
	}
	if !to.Addr().Is4() {
		return -1, fmt.Errorf("%s is not an IPv4 address", to)
	}
	sa := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	return fd, os.NewSyscallError("connect", retry(func() error { return unix.Connect(fd, sa) }))
}

// setReadTimeout makes reads give up with EAGAIN.
func setReadTimeout(fd int, d time.Duration) error {
	tv := unix.NsecToTimeval(int64(d))
	return os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
}

// retry calls f again while a signal interrupts it; the Go scheduler sends some.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// batch is the arguments of sendmmsg and recvmmsg for datagrams of one size.
type batch struct {
	msgs []mmsghdr
	iovs []unix.Iovec
	buf  []byte
}

func newBatch(n, size int) *batch {
	b := &batch{msgs: make([]mmsghdr, n), iovs: make([]unix.Iovec, n), buf: make([]byte, n*size)}
	for i := range b.msgs {
		b.iovs[i].Base = &b.buf[i*size]
		b.iovs[i].SetLen(size)
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// send sends the batch on a connected socket and returns how many datagrams went.
func (b *batch) send(fd int) (int, error) {
	return b.call(unix.SYS_SENDMMSG, fd, 0)
}

// receive waits for one datagram and takes what else there is.
func (b *batch) receive(fd int) (int, error) {
	return b.call(unix.SYS_RECVMMSG, fd, unix.MSG_WAITFORONE)
}

func (b *batch) call(trap uintptr, fd, flags int) (int, error) {
	for {
		n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])),
			uintptr(len(b.msgs)), uintptr(flags), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

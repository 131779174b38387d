package stream

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// notSent bounds what the kernel holds and has not sent, in bytes: the rest waits
// in the queue, where it can still be dropped. tcp(7), TCP_NOTSENT_LOWAT.
const notSent = 32 << 10

// tuneSystem is best effort: a stream works without, only later.
func tuneSystem(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { setOptions(fd) })
}

func setOptions(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
	_ = syscall.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTimeout.Milliseconds()))
}

package splice

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// stateClose is TCP_CLOSE of tcp_states.h: what was not acknowledged will not be.
const stateClose = 7

// hasAll reports whether the other end of a connection has acknowledged all that was
// written, and the end after it, or is gone. Of one that cannot tell it is true.
func hasAll(c net.Conn) bool {
	if s, ok := within[interface{ HasAll() bool }](c); ok {
		return s.HasAll()
	}
	s, ok := within[syscall.Conn](c)
	if !ok {
		return true
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	all := true
	_ = raw.Control(func(fd uintptr) {
		left, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		if err != nil || left == 0 {
			return
		}
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		all = err != nil || info.State == stateClose
	})
	return all
}

package splice

import (
	"net"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// The states of tcp_states.h in which nothing waits to be acknowledged, after CloseWrite.
const (
	stateFinWait2 = 5
	stateTimeWait = 6
	stateClose    = 7
)

// hasAll reports whether the other end of a connection has got all that was written and
// the end after it, or is gone. Of one that cannot tell it is true.
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
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			all = slices.Contains([]uint8{stateFinWait2, stateTimeWait, stateClose}, info.State)
		}
	})
	return all
}

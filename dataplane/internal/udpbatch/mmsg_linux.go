package udpbatch

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is the kernel's struct mmsghdr: Go pads it as C does on every
// architecture, because Msghdr holds a pointer.
type mmsghdr struct {
	unix.Msghdr
	n uint32 // bytes received or sent
}

// The system calls are raw: they never block, and the Go scheduler would take
// the time in a long one, which is the kernel walking 64 KiB of packets through
// its stack, for blocking and wake another thread to run the rest.

// recvBatch receives into hdrs without blocking and returns how many it
// filled.
func (c *Conn) recvBatch(fd uintptr, hdrs []mmsghdr) (int, unix.Errno) {
	if c.single.Load() {
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&hdrs[0].Msghdr)), unix.MSG_DONTWAIT)
		if errno != 0 {
			return 0, errno
		}
		hdrs[0].n = uint32(n)
		return 1, 0
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])),
		uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sendBatch sends hdrs without blocking and returns how many the kernel took.
// An errno belongs to the first one.
func (c *Conn) sendBatch(fd uintptr, hdrs []mmsghdr) (int, unix.Errno) {
	if c.single.Load() {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&hdrs[0].Msghdr)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno != 0 {
			return 0, errno
		}
		return 1, 0
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])),
		uintptr(len(hdrs)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

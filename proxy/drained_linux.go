package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// drained reports whether the kernel holds nothing of a connection: all was read, and
// all that was written is acknowledged.
func drained(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	empty := false
	err = raw.Control(func(fd uintptr) {
		in, inErr := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		out, outErr := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		empty = inErr == nil && outErr == nil && in == 0 && out == 0
	})
	return err == nil && empty
}

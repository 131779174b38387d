package portmap

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// listenAnnouncements opens a socket bound to the group itself, where net would
// bind the wildcard address: it hears nothing that is sent to an address of
// ours, and shares the port with other programs that listen.
func listenAnnouncements() (*net.UDPConn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "announcements")
	defer f.Close() // FilePacketConn duplicates it
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: announcePort, Addr: [4]byte{224, 0, 0, 1}}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	conn, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

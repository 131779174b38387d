package proxytest

import (
	"net"
	"syscall"
	"testing"
)

// Keepalive fails the test unless the kernel gives up the other end of a TCP connection
// within 60 seconds when that is gone.
func Keepalive(t testing.TB, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var on, idle, interval, count int
	err = raw.Control(func(fd uintptr) {
		on, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
		idle, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
		interval, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL)
		count, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
	})
	if err != nil || on != 1 || idle+interval*count != 60 {
		t.Errorf("keepalive %d, after %d s every %d s %d times, %v", on, idle, interval, count, err)
	}
}

package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// dialHostPing opens a connected ICMP socket, which gets the answers to its own requests
// only: icmp(7), "ping sockets". The sysctl net.ipv4.ping_group_range says who may.
func dialHostPing(to netip.Addr) (net.Conn, error) {
	family, protocol := unix.AF_INET6, unix.IPPROTO_ICMPV6
	var addr unix.Sockaddr = &unix.SockaddrInet6{Addr: to.As16()}
	if to.Is4() {
		family, protocol, addr = unix.AF_INET, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Addr: to.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open an ICMP socket (see net.ipv4.ping_group_range): %w", err)
	}
	f := os.NewFile(uintptr(fd), "icmp")
	defer f.Close() // FileConn has its own
	if err := unix.Connect(fd, addr); err != nil {
		return nil, fmt.Errorf("connect an ICMP socket with %s: %w", to, err)
	}
	return net.FileConn(f)
}

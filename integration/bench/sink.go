//go:build linux

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	tcpBlock = 256 << 10 // bytes per write and read
	udpBatch = 64        // datagrams per system call
)

// openSinks opens the receiving sockets and returns the loops that serve them.
func openSinks(m *meter) ([]func() error, error) {
	tcp, err := listen(unix.SOCK_STREAM, sinkPort)
	if err != nil {
		return nil, err
	}
	udp, err := listen(unix.SOCK_DGRAM, sinkPort)
	if err != nil {
		return nil, err
	}
	echo, err := listen(unix.SOCK_DGRAM, echoPort)
	if err != nil {
		return nil, err
	}
	return []func() error{
		func() error { return sinkTCP(tcp, m) },
		func() error { return sinkUDP(udp, m) },
		func() error { return echoUDP(echo) },
	}, nil
}

// sinkTCP serves one connection after another.
func sinkTCP(listener int, m *meter) error {
	buf := make([]byte, tcpBlock)
	for {
		var fd int
		if err := retry(func() (err error) { fd, _, err = unix.Accept(listener); return err }); err != nil {
			return os.NewSyscallError("accept", err)
		}
		for {
			var n int
			err := retry(func() (err error) { n, err = unix.Read(fd, buf); return err })
			if err != nil || n == 0 { // a sender that was stopped resets it
				break
			}
			m.bytes.Add(uint64(n))
		}
		_ = unix.Close(fd)
	}
}

func sinkUDP(fd int, m *meter) error {
	b := newBatch(udpBatch, 2048)
	for {
		n, err := b.receive(fd)
		if err != nil {
			return os.NewSyscallError("recvmmsg", err)
		}
		var size uint64
		for i := range n {
			size += uint64(b.msgs[i].len)
		}
		m.bytes.Add(size)
		m.packets.Add(uint64(n))
	}
}

func echoUDP(fd int) error {
	buf := make([]byte, 2048)
	for {
		var n int
		var from unix.Sockaddr
		err := retry(func() (err error) { n, from, err = unix.Recvfrom(fd, buf, 0); return err })
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if err := retry(func() error { return unix.Sendto(fd, buf[:n], 0, from) }); err != nil {
			return os.NewSyscallError("sendto", err)
		}
	}
}

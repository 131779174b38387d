//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// defaultCongestion is what Linux uses unless somebody chose something else.
const defaultCongestion = "cubic"

// sendTCP sends as fast as the connection takes it.
func sendTCP(to netip.AddrPort, congestion string, m *meter) error {
	fd, err := connect(unix.SOCK_STREAM, to)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion); err != nil {
		return fmt.Errorf("congestion control %q: %w", congestion, err)
	}
	buf := make([]byte, tcpBlock)
	for {
		var n int
		if err := retry(func() (err error) { n, err = unix.Write(fd, buf); return err }); err != nil {
			return os.NewSyscallError("write", err)
		}
		m.bytes.Add(uint64(n))
	}
}

// sendUDP sends datagrams, so many a second, or with rate 0 as fast as system
// calls go, whatever becomes of them.
func sendUDP(to netip.AddrPort, size, rate int, m *meter) error {
	fd, err := connect(unix.SOCK_DGRAM, to)
	if err != nil {
		return err
	}
	b := newBatch(udpBatch, size)
	next := time.Now()
	for {
		if rate > 0 {
			time.Sleep(time.Until(next))
			next = next.Add(udpBatch * time.Second / time.Duration(rate))
		}
		n, err := b.send(fd)
		if errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("sendmmsg", err)
		}
		m.bytes.Add(uint64(n * size))
		m.packets.Add(uint64(n))
	}
}

// sendMesh sends a datagram to each address, so many times a second, one after
// the other with equal pauses.
func sendMesh(to []netip.AddrPort, size, rate int) error {
	var fds []int
	for _, at := range to {
		fd, err := connect(unix.SOCK_DGRAM, at)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	pause := time.Second / time.Duration(rate*len(fds))
	msg := make([]byte, size)
	for next := time.Now(); ; {
		for _, fd := range fds {
			time.Sleep(time.Until(next))
			next = next.Add(pause)
			// An ICMP error about an earlier one is none of ours.
			_ = retry(func() error { _, err := unix.Write(fd, msg); return err })
		}
	}
}

const (
	pingSize    = 64 // bytes of payload
	pingTimeout = 200 * time.Millisecond
)

// ping sends one datagram after another, each when the one before has come back.
func ping(to netip.AddrPort, d time.Duration, w io.Writer) error {
	fd, err := connect(unix.SOCK_DGRAM, to)
	if err != nil {
		return err
	}
	if err := setReadTimeout(fd, pingTimeout); err != nil {
		return err
	}
	var rtts []time.Duration
	msg, buf := make([]byte, pingSize), make([]byte, pingSize)
	for start, seq := time.Now(), uint64(1); time.Since(start) < d; seq++ {
		binary.BigEndian.PutUint64(msg, seq)
		sent := time.Now()
		if err := retry(func() error { _, err := unix.Write(fd, msg); return err }); err != nil {
			return os.NewSyscallError("write", err)
		}
		if ok, err := awaitEcho(fd, buf, seq); err != nil {
			return err
		} else if ok {
			rtts = append(rtts, time.Since(sent))
		}
	}
	if len(rtts) == 0 {
		return fmt.Errorf("no answer from %s", to)
	}
	slices.Sort(rtts)
	_, err = fmt.Fprintln(w, int64(quantile(rtts, 50)), int64(quantile(rtts, 99)), len(rtts))
	return err
}

// awaitEcho waits for datagram seq; false means that it did not come.
func awaitEcho(fd int, buf []byte, seq uint64) (bool, error) {
	for {
		var n int
		err := retry(func() (err error) { n, err = unix.Read(fd, buf); return err })
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		if err != nil {
			return false, os.NewSyscallError("read", err)
		}
		if n == pingSize && binary.BigEndian.Uint64(buf) == seq {
			return true, nil
		}
	}
}

// quantile returns the given percentile of sorted values.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

package proxytest

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// TCP serves on a port of loopback until the test ends: each connection in a goroutine of
// its own, which is joined, and closed after serve.
func TCP(t testing.TB, serve func(c net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	open := map[net.Conn]bool{}
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	keep := func(c net.Conn, is bool) {
		mu.Lock()
		defer mu.Unlock()
		if is {
			open[c] = true
		} else {
			delete(open, c)
		}
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			keep(c, true)
			wg.Go(func() {
				defer keep(c, false)
				defer c.Close()
				serve(c)
			})
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// AtEnd is for TCP: it answers with what a caller said, changed, once that is complete.
func AtEnd(change func(b []byte) []byte) func(c net.Conn) {
	return func(c net.Conn) {
		b, _ := io.ReadAll(c)
		_, _ = c.Write(change(b))
	}
}

// UDP answers datagrams on a port of loopback until the test ends; nil: not this one.
func UDP(t testing.TB, answer func(b []byte) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = c.Close(); wg.Wait() })
	wg.Go(func() {
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if a := answer(b[:n]); a != nil {
				_, _ = c.WriteTo(a, from)
			}
		}
	})
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Same is the answer of an echo.
func Same(b []byte) []byte { return b }

package outbound

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"corax/proxy/proxytest"
)

// lame opens the second UDP socket when it is let go, every other one at once; each
// leads to loopback.
type lame struct {
	tunnel
	opened chan int
	let    chan struct{}
}

func (l *lame) DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	n := <-l.opened
	l.opened <- n + 1
	if n == 1 {
		select {
		case <-l.let:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return l.tunnel.DialUDP(ctx, to)
}

// TestMapsUDPSlow: a flow that takes long to open, because of its name for example,
// holds up no other, and what waited for it is sent, up to a bound.
func TestMapsUDPSlow(t *testing.T) {
	server := proxytest.UDP(t, proxytest.Same).Port()
	n := &lame{opened: make(chan int, 1), let: make(chan struct{})}
	n.opened <- 0
	d, err := NewDialer(Config{Network: n, Reach: pods.Contains})
	if err != nil {
		t.Fatal(err)
	}
	m := Map{"udp", freePort(t, "udp"), pod.String(), server}
	ms, err := NewMaps(d, nil, []Map{m})
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Run(t, ms.Run)
	var c [3]*net.UDPConn
	for i := range c {
		if c[i], err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(m.Listen)); err != nil {
			t.Fatal(err)
		}
		defer c[i].Close()
		_ = c[i].SetDeadline(time.Now().Add(10 * time.Second))
	}
	b := make([]byte, 10)
	hear := func(c *net.UDPConn, want string) {
		t.Helper()
		if n, err := c.Read(b); err != nil || string(b[:n]) != want {
			t.Fatalf("%q, %v; want %q", b[:n], err, want)
		}
	}
	until(t, func() error { // it listens
		if _, err := c[2].Write([]byte("up")); err != nil {
			return err
		}
		_, err := c[2].Read(b)
		return err
	})
	for range maxWaiting + 2 {
		if _, err := c[0].Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
	}
	until(t, func() error { // the flow is being opened
		n1 := <-n.opened
		n.opened <- n1
		if n1 < 2 {
			return net.ErrClosed
		}
		return nil
	})
	if _, err := c[1].Write([]byte("now")); err != nil {
		t.Fatal(err)
	}
	hear(c[1], "now")
	if got := ms.dropped.Load(); got != 2 {
		t.Errorf("%d dropped, want 2", got)
	}
	close(n.let)
	for range maxWaiting {
		hear(c[0], "late")
	}
}

// TestMapsUDPRefused: a flow whose other end has no socket ends, and is counted.
func TestMapsUDPRefused(t *testing.T) {
	closed := freePort(t, "udp")
	m := Map{"udp", freePort(t, "udp"), pod.String(), closed.Port()}
	ms, err := NewMaps(newDialer(t, &tunnel{}, netip.AddrPort{}), nil, []Map{m})
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Run(t, ms.Run)
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(m.Listen))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until(t, func() error {
		_, _ = c.Write([]byte("x"))
		if ms.unheard.Load() == 0 {
			return net.ErrClosed
		}
		return nil
	})
	until(t, func() error {
		if ms.List()[0].Open != 0 {
			return net.ErrClosed
		}
		return nil
	})
}

// TestMapsUDPMemory: a flow at rest holds no buffer for what may come.
func TestMapsUDPMemory(t *testing.T) {
	const flows, most = 100, 40 << 10 // bytes each, the test's own socket included
	server := proxytest.UDP(t, proxytest.Same).Port()
	d := newDialer(t, &tunnel{}, netip.AddrPort{})
	m := Map{"udp", freePort(t, "udp"), pod.String(), server}
	ms, err := NewMaps(d, nil, []Map{m})
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Run(t, ms.Run)
	b := make([]byte, 10)
	open := func() {
		t.Helper()
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(m.Listen))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		until(t, func() error {
			_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = c.Write([]byte("x"))
			_, err := c.Read(b)
			return err
		})
	}
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc + s.StackInuse
	}
	open()
	before := used()
	for range flows {
		open()
	}
	each := (used() - min(before, used())) / flows
	t.Logf("%d bytes a flow", each)
	if each > most {
		t.Errorf("a flow at rest holds %d bytes", each)
	}
}

//go:build linux

package rootless_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// TestInbound reaches a rootless site's pods from a pod of another domain.
func TestInbound(t *testing.T) {
	w := newWorld(t, true)
	w.inbound(t, 32<<20)
}

// TestSoakInbound is TestInbound with more bytes.
func TestSoakInbound(t *testing.T) {
	if os.Getenv("CORAX_SOAK") == "" {
		t.Skip("set CORAX_SOAK to run it")
	}
	w := newWorld(t, true)
	w.inbound(t, 200<<20)
}

func (w *world) inbound(t *testing.T, bytes int64) {
	// Those that wait for a timeout run beside the others.
	var waits sync.WaitGroup
	waits.Go(func() { t.Run("filtered", w.filtered) })
	waits.Go(func() { t.Run("nobody there", w.nobodyThere) })
	defer waits.Wait()
	to4, to6 := netip.AddrPortFrom(w.own.IP, podPort), netip.AddrPortFrom(w.own.IP6, podPort)

	t.Run("TCP", func(t *testing.T) {
		for _, to := range []netip.AddrPort{to4, to6} {
			if _, err := w.far.Transfer(within(t, 3*time.Minute), to, bytes); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("UDP", func(t *testing.T) {
		for _, to := range []netip.AddrPort{to4, to6} {
			for _, size := range []int{32, 1200, 5000} {
				if _, err := w.far.EchoUDP(within(t, 10*time.Second), to, size); err != nil {
					t.Error(err)
				}
			}
		}
	})
	t.Run("ping", func(t *testing.T) {
		for _, to := range []netip.Addr{w.own.IP, w.own.IP6} {
			if _, err := w.far.Ping(within(t, 10*time.Second), to, lab.PingOptions{Size: 600}); err != nil {
				t.Error(err)
			}
		}
		if w.status().Problem("pings of this node's own pods") {
			t.Error("status says that pings do not work")
		}
	})
	t.Run("half-close", func(t *testing.T) { halfClose(t, w.far.Host, w.own.Host, w.own.IP) })
	t.Run("refused", w.refused)
	t.Run("2000 at once", func(t *testing.T) { w.many(t, 2000) })
	t.Run("plain node", func(t *testing.T) {
		plain := w.Domains[1].Nodes[1].Pods[0]
		if _, err := w.far.Transfer(within(t, 60*time.Second), netip.AddrPortFrom(plain.IP, podPort), 4<<20); err != nil {
			t.Error(err)
		}
		if _, err := plain.Transfer(within(t, 60*time.Second), netip.AddrPortFrom(w.far.IP, podPort), 4<<20); err != nil {
			t.Error(err)
		}
		if _, err := plain.Ping(within(t, 10*time.Second), w.far.IP, lab.PingOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// halfClose has a server answer only after it has seen the end of the question.
func halfClose(t *testing.T, from, at *lab.Host, ip netip.Addr) {
	t.Helper()
	const port = 7501
	ln, err := at.ListenTCP(netip.AddrPortFrom(ip, port))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var g errgroup.Group
	g.Go(func() error {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		if err != nil {
			return err
		}
		_, err = c.Write(append([]byte("you said "), b...))
		return err
	})
	c, err := from.DialTCP(within(t, 10*time.Second), netip.AddrPortFrom(ip, port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("all of it")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "you said all of it" {
		t.Errorf("%q, %v", b, err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// refused: a port without a listener is a reset, or ICMP port unreachable.
func (w *world) refused(t *testing.T) {
	for _, ip := range []netip.Addr{w.own.IP, w.own.IP6} {
		to := netip.AddrPortFrom(ip, 9)
		start := time.Now()
		if _, err := w.far.DialTCP(within(t, 20*time.Second), to); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("TCP %s: %v after %v, want refused", to, err, time.Since(start))
		}
		c, err := w.far.DialUDP(to)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("x"))
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("UDP %s: %v, want refused", to, err)
		}
		_ = c.Close()
	}
}

// filtered: a host that drops is a timeout, and neither accepted nor refused.
func (w *world) filtered(t *testing.T) {
	to := netip.AddrPortFrom(w.blackHole(t, 201), 80)
	start := time.Now()
	c, err := w.far.DialTCP(within(t, 14*time.Second), to)
	if err == nil {
		_ = c.Close()
		t.Fatal("accepted")
	}
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) || time.Since(start) < 10*time.Second {
		t.Errorf("after %v: %v, want a timeout", time.Since(start), err)
	}
	if w.status().Counters["forward_drop_total{silent}"] == 0 {
		t.Error("not counted")
	}
}

// nobodyThere: an address of the subnet that no pod has is unreachable.
func (w *world) nobodyThere(t *testing.T) {
	b := w.own.IP.As4()
	b[3] = 200
	_, err := w.far.DialTCP(within(t, 20*time.Second), netip.AddrPortFrom(netip.AddrFrom4(b), 80))
	if !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("%v, want host unreachable", err)
	}
}

// many has n connections open at once, and something said on each of them then.
func (w *world) many(t *testing.T, n int) {
	to := netip.AddrPortFrom(w.own.IP, podPort)
	ctx := within(t, 90*time.Second)
	conns := make([]*net.TCPConn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	var g errgroup.Group
	for i := range conns {
		g.Go(func() error {
			c, err := w.far.DialTCP(ctx, to)
			conns[i] = c
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if open, _ := w.open(t); open < uint64(n) {
		t.Errorf("%d connections are open, want %d", open, n)
	}
	for i, c := range conns {
		g.Go(func() error {
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			text := fmt.Sprintf("e this is %d", i) // e: echo
			if _, err := c.Write([]byte(text)); err != nil {
				return err
			}
			answer := make([]byte, len(text)-1)
			if _, err := io.ReadFull(c, answer); err != nil || string(answer) != text[1:] {
				return fmt.Errorf("%q came back for %q: %w", answer, text[1:], err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// TestNoPing: a kernel that gives no ICMP sockets to this user makes pings answered
// with "prohibited", and status says why.
func TestNoPing(t *testing.T) {
	w := newWorld(t, false)
	var refused *lab.ICMPError
	if _, err := w.far.Ping(within(t, 20*time.Second), w.own.IP, lab.PingOptions{}); !errors.As(err, &refused) || refused.Type != 3 || refused.Code != 13 {
		t.Errorf("IPv4: %v", err)
	}
	if _, err := w.far.Ping(within(t, 20*time.Second), w.own.IP6, lab.PingOptions{}); !errors.As(err, &refused) || refused.Type != 1 || refused.Code != 1 {
		t.Errorf("IPv6: %v", err)
	}
	s := w.status()
	if !s.Problem("net.ipv4.ping_group_range") {
		t.Errorf("problems: %q", s.Problems)
	}
	if s.Counters["forward_drop_total{no_ping}"] != 2 {
		t.Errorf("counters: %v", s.Counters)
	}
}

package forward

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"corax/dataplane"
)

func TestTCPHalfClose(t *testing.T) {
	noLeaks(t)
	for _, tt := range []struct {
		name, listen string
		pod          netip.Addr
	}{{"IPv4", "127.0.0.1:0", pod4}, {"IPv6", "[::1]:0", pod6}} {
		t.Run(tt.name, func(t *testing.T) {
			ln := listen(t, "tcp", tt.listen)
			w := newWorld(t, Config{})
			const size = 3 << 20
			sent := make([]byte, size)
			rnd := rand.NewChaCha8([32]byte{1})
			_, _ = rnd.Read(sent)
			got := make(chan []byte, 1)
			go func() { // it answers only when it has seen the end
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				b, _ := io.ReadAll(c)
				sum := sha256.Sum256(b)
				got <- sum[:]
				_, _ = c.Write(b)
			}()
			c, err := w.dial(netip.AddrPortFrom(tt.pod, portOf(ln.Addr())))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			back, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			want := sha256.Sum256(sent)
			if !bytes.Equal(<-got, want[:]) || !bytes.Equal(back, sent) {
				t.Errorf("%d bytes came back, and not the same", len(back))
			}
			if n := w.counter("forward_bytes_total{in}"); n != size {
				t.Errorf("counted %d bytes", n)
			}
		})
	}
}

func TestTCPRefused(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, Config{})
	ln := listen(t, "tcp", "127.0.0.1:0")
	port := portOf(ln.Addr())
	_ = ln.Close()
	_, err := w.dial(netip.AddrPortFrom(pod4, port))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("error %v, want refused", err)
	}
	if w.counter("forward_drop_total{refused}") != 1 {
		t.Error("not counted")
	}
}

// TestTCPReset checks that a broken connection does not look like one that ended.
func TestTCPReset(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, Config{})
	ln := listen(t, "tcp", "127.0.0.1:0")
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 1))
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}()
	c, err := w.dial(netip.AddrPortFrom(pod4, portOf(ln.Addr())))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v: want a reset", n, err)
	}
}

func TestTCPForbidden(t *testing.T) {
	noLeaks(t)
	cfg := Config{}
	w := newWorld(t, cfg)
	w.f.SetSubnets([]netip.Prefix{
		netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("fd00:ec2::/32"),
	})
	for _, tt := range []struct{ addr, counter string }{
		{"10.9.0.1", "forward_drop_total{not_ours}"},
		{"169.254.169.254", "forward_drop_total{forbidden}"},
		{"fd00:ec2::254", "forward_drop_total{forbidden}"},
	} {
		before := w.counter(tt.counter)
		w.mu.Lock()
		w.errors = nil
		w.mu.Unlock()
		to := netip.AddrPortFrom(netip.MustParseAddr(tt.addr), 80)
		want := 13
		if to.Addr().Is6() {
			want = 1
			// The dialling stack does not know what that means: the packet counts.
			w.far.Go(func(context.Context) { _, _ = w.dial(to) })
		} else if _, err := w.dial(to); !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("%s: %v, want unreachable", tt.addr, err)
		}
		if got := w.code(); got != want {
			t.Errorf("%s: code %d, want %d", tt.addr, got, want)
		}
		if n := w.counter(tt.counter) - before; n == 0 {
			t.Errorf("%s: not counted", tt.addr)
		}
	}
}

func TestTCPProxyProtocol(t *testing.T) {
	noLeaks(t)
	ln := listen(t, "tcp", "127.0.0.1:0")
	port := portOf(ln.Addr())
	w := newWorld(t, Config{ProxyProtocol: []Destinations{{Prefix: netip.PrefixFrom(pod4, 32), Port: port}}})
	got := make(chan []byte, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		got <- b
	}()
	c, err := w.dial(netip.AddrPortFrom(pod4, port))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("hello"))
	from := c.LocalAddr().(*net.TCPAddr).Port
	_ = c.Close()
	b := <-got
	want := appendProxyHeader(nil, netip.AddrPortFrom(client4, uint16(from)), netip.AddrPortFrom(pod4, port))
	if !bytes.Equal(b, append(want, "hello"...)) {
		t.Errorf("got %x", b)
	}
}

func TestAppendProxyHeader(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want string }{
		{"IPv4", "10.2.0.9:4660", "10.1.0.2:80", "0d0a0d0a000d0a515549540a2111000c0a0200090a01000212340050"},
		{
			"IPv6", "[fd00:2::9]:4660", "[fd00:1::2]:80",
			"0d0a0d0a000d0a515549540a21210024" + "fd000002000000000000000000000009" + "fd000001000000000000000000000002" + "12340050",
		},
	} {
		got := hex.EncodeToString(appendProxyHeader(nil, netip.MustParseAddrPort(tt.from), netip.MustParseAddrPort(tt.to)))
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestTCPLimits checks that one source cannot have everything.
func TestTCPLimits(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, Config{Limits: Limits{Connections: 4}})
	ln := listen(t, "tcp", "127.0.0.1:0")
	to := netip.AddrPortFrom(pod4, portOf(ln.Addr()))
	for range 2 {
		c, err := w.dial(to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.dial(to)
		done <- err
	}()
	await(t, "refusal of the third", func() bool { return w.counter("forward_drop_total{full_source}") > 0 })
	other, err := w.far.DialTCP(t.Context(), client4.Next(), to)
	if err != nil {
		t.Errorf("another source: %v", err)
	} else {
		_ = other.Close()
	}
	w.ends()
	if err := <-done; err == nil {
		t.Error("the third connection was accepted")
	}
}

// TestTCPFlood sends questions from forged sources, whose answers nobody
// acknowledges, and checks that what is open lives and that closing does not wait.
func TestTCPFlood(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, Config{})
	ln := listen(t, "tcp", "127.0.0.1:0")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	to := netip.AddrPortFrom(pod4, portOf(ln.Addr()))
	c, err := w.dial(to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.mu.Lock()
	w.pass = func(p []byte) bool { return p[17] != 3 } // nobody there, not even one who resets
	w.mu.Unlock()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 2500 {
				w.site.Send([]dataplane.Packet{{Data: syn(netip.AddrFrom4([4]byte{10, 3, byte(i), byte(j)}), to, uint16(1000+j))}})
			}
		})
	}
	wg.Wait()
	if w.counter("site_drop_total{attempts_full}") == 0 {
		t.Error("10,000 attempts found room")
	}
	if _, err := c.Write([]byte("alive")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "alive" {
		t.Errorf("an open connection: %q, %v", b, err)
	}
}

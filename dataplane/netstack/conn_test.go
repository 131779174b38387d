package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"corax/dataplane"
)

// connect returns the two ends of a TCP connection from a to b.
func (p *pair) connect(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := p.b.ListenTCP(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	a, err = p.a.DialTCP(timeout(t), netip.AddrPortFrom(addrB, port))
	if err != nil {
		t.Fatal(err)
	}
	b, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		t.Cleanup(func() { _ = c.Close() })
	}
	if from := b.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != addrA {
		t.Fatalf("connection from %s, want %s", from, addrA)
	}
	return a, b
}

func TestTCPTransfer(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		t.Run(map[bool]string{false: "clean", true: "lossy"}[lossy], func(t *testing.T) {
			noLeaks(t)
			p := newPair(t)
			a, b := p.connect(t)
			if lossy {
				n := 0
				p.ab.lose(func([]byte) bool { n++; return n%200 != 0 })
			}
			data := make([]byte, 10<<20)
			for i := range data {
				data[i] = byte(i ^ i>>8 ^ i>>16)
			}
			sent := make(chan error, 1)
			go func() {
				_, err := a.Write(data)
				sent <- errors.Join(err, a.(interface{ CloseWrite() error }).CloseWrite())
			}()
			h := sha256.New()
			if n, err := io.Copy(h, b); err != nil || n != int64(len(data)) {
				t.Fatalf("%d bytes: %v", n, err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
				t.Fatal("the bytes that arrived are not those that were sent")
			}
			p.ab.mu.Lock()
			defer p.ab.mu.Unlock()
			if p.ab.largest > dataplane.DefaultMTU {
				t.Errorf("a packet of %d bytes", p.ab.largest)
			}
			if p.ab.packets < 2*p.ab.batches {
				t.Errorf("%d packets in %d batches: nothing is batched", p.ab.packets, p.ab.batches)
			}
			if n := counter(p.b, "netstack_drop_total", "bad_checksum"); n != 0 {
				t.Errorf("%d wrong checksums", n)
			}
		})
	}
}

// TestTCPHalfClose: the other direction goes on after CloseWrite.
func TestTCPHalfClose(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	a, b := p.connect(t)
	if _, err := a.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := a.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "question" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := b.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
		t.Fatalf("%q, %v", got, err)
	}
}

// TestTCPStackClosed: the peer of a stack that ends gets a reset, a blocked
// Accept and a blocked Read return.
func TestTCPStackClosed(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	a, b := p.connect(t)
	l, err := p.b.ListenTCP(80)
	if err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error, 2)
	go func() { _, err := l.Accept(); blocked <- err }()
	go func() { _, err := b.Read(make([]byte, 1)); blocked <- err }()
	if err := p.b.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case err := <-blocked:
			if err == nil {
				t.Error("no error from a closed stack")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("blocked on a closed stack")
		}
	}
	if _, err := a.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the peer reads %v, want a reset", err)
	}
	p.b.Send([]dataplane.Packet{{Data: make([]byte, 40)}})
	if n := counter(p.b, "netstack_drop_total", "closed"); n == 0 {
		t.Error("a packet for a closed stack was not counted")
	}
}

// TestTCPTimeWait: closing a stack does not wait for connections that do.
func TestTCPTimeWait(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	a, b := p.connect(t)
	_ = a.Close()
	if _, err := io.ReadAll(b); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	start := time.Now()
	p.stop()
	if d := time.Since(start); d > 15*time.Second {
		t.Errorf("closing took %s", d)
	}
}

func TestTCPRefused(t *testing.T) {
	p := newPair(t)
	if _, err := p.a.DialTCP(timeout(t), netip.AddrPortFrom(addrB, 9)); err == nil {
		t.Fatal("connected to a port that nobody listens on")
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.ab.lose(func([]byte) bool { cancel(); return false })
	if _, err := p.a.DialTCP(ctx, netip.AddrPortFrom(addrB, 9)); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled dial: %v", err)
	}
	if _, err := p.a.DialTCP(t.Context(), netip.AddrPort{}); err == nil {
		t.Fatal("dialled nowhere")
	}
	if _, err := p.a.DialTCP(timeout(t), netip.MustParseAddrPort("192.0.2.1:80")); err == nil {
		t.Fatal("dialled IPv4 without a segment")
	}
}

func TestListenTwice(t *testing.T) {
	p := newPair(t)
	l, err := p.a.ListenTCP(80)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.a.ListenTCP(80); err == nil {
		t.Fatal("a port was listened on twice")
	}
	accepted := make(chan error, 1)
	go func() { _, err := l.Accept(); accepted <- err }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-accepted:
		if err == nil {
			t.Fatal("accepted from a closed listener")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Accept stays blocked after Close")
	}
}

func TestUDP(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	l, err := p.b.ListenUDP(4501)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := p.b.ListenUDP(4501); err == nil {
		t.Fatal("a port was taken twice")
	}
	c, err := p.a.DialUDP(netip.AddrPortFrom(addrB, 4501))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline := time.Now().Add(20 * time.Second)
	_, _ = l.SetDeadline(deadline), c.SetDeadline(deadline)
	buf := make([]byte, 8000)
	for _, n := range []int{0, 1, 1200, 1360, 5000} { // the last one in fragments
		want := bytes.Repeat([]byte{byte(n)}, n)
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		k, from, err := l.ReadFrom(buf)
		if err != nil || !bytes.Equal(buf[:k], want) {
			t.Fatalf("%d bytes: got %d, %v", n, k, err)
		}
		if from.(*net.UDPAddr).AddrPort().Addr() != addrA {
			t.Fatalf("from %s", from)
		}
		if _, err := l.WriteTo(buf[:k], from); err != nil {
			t.Fatal(err)
		}
		if k, err = c.Read(buf); err != nil || !bytes.Equal(buf[:k], want) {
			t.Fatalf("%d bytes back: got %d, %v", n, k, err)
		}
	}
}

package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"corax/dataplane/netstack"
)

// TestAgentPings: sizes say what becomes of a ping.
func TestAgentPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			lost = iota + 1
			unreachable
			tooBig
			broken
		)
		other := errors.New("of another kind")
		to := netip.MustParseAddr("fd63:6f72:6178::1")
		c := newAgentPings(func(ctx context.Context, at netip.Addr, size int) (time.Duration, error) {
			if at != to {
				t.Errorf("pinged %s", at)
			}
			switch size {
			case lost:
				<-ctx.Done()
				return 0, ctx.Err()
			case unreachable:
				return 0, netstack.ErrUnreachable
			case tooBig:
				return 0, &netstack.TooBigError{MTU: 1280}
			case broken:
				return 0, other
			}
			return 0, nil
		}, to)
		b := make([]byte, 100)
		for _, tt := range []struct {
			size int
			err  error
		}{
			{0, nil},
			{50, nil},
			{lost, os.ErrDeadlineExceeded},
			{unreachable, syscall.EHOSTUNREACH},
			{tooBig, os.ErrDeadlineExceeded},
			{broken, other},
			{60, nil},
		} {
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			said := append([]byte{0, byte(tt.size)}, make([]byte, tt.size)...)
			if _, err := c.Write(said); err != nil {
				t.Fatal(err)
			}
			n, err := c.Read(b)
			if !errors.Is(err, tt.err) || err == nil && string(b[:n]) != string(said) {
				t.Errorf("%d bytes: %d came back, %v", tt.size, n, err)
			}
		}
		if _, err := c.Write([]byte{1}); !errors.Is(err, syscall.EINVAL) {
			t.Error(err)
		}
		// As many as may wait, one that is lost, and all end with the connection.
		for range maxAgentPings + 1 {
			if _, err := c.Write([]byte{0, 1, 0}); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(c.places); n != maxAgentPings {
			t.Errorf("%d wait", n)
		}
		_ = c.SetReadDeadline(time.Time{})
		ended := make(chan error)
		go func() {
			_, err := c.Read(b)
			ended <- err
		}()
		synctest.Wait()
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := c.Write([]byte{0, 0}); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// TestStreamPing: a ping stream of the local API, its errors too.
func TestStreamPing(t *testing.T) {
	far := make(chan error, 1)
	d := streamsOf(t, func(_ context.Context, to streamTarget) (net.Conn, error) {
		if to != (streamTarget{"ping", "10.2.0.9", 0}) {
			return nil, errors.New("unexpected")
		}
		near, end := net.Pipe()
		go func() {
			b := make([]byte, 100)
			n, _ := end.Read(b)
			_, _ = end.Write(b[:n])
		}()
		return failingConn{near, far}, nil
	})
	for _, why := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.EACCES} {
		c, err := d.DialPing(t.Context(), netip.MustParseAddr("10.2.0.9"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write([]byte("12ping")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if n, err := c.Read(b); err != nil || string(b[:n]) != "12ping" {
			t.Errorf("%q, %v", b[:n], err)
		}
		far <- why
		if _, err := c.Read(b); !errors.Is(err, why) {
			t.Errorf("%v, want %v", err, why)
		}
		_ = c.Close()
	}
}

// failingConn fails its second read.
type failingConn struct {
	net.Conn
	why chan error
}

func (c failingConn) Read(b []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	got := make(chan result, 1)
	go func() {
		n, err := c.Conn.Read(b)
		got <- result{n, err}
	}()
	select {
	case r := <-got:
		return r.n, r.err
	case err := <-c.why:
		_ = c.Conn.Close()
		return 0, err
	}
}

// TestHostPings: what an ICMP socket of the kernel takes and gives.
func TestHostPings(t *testing.T) {
	for _, tt := range []struct {
		v4             bool
		request, reply byte
	}{{true, 8, 0}, {false, 128, 129}} {
		near, far := net.Pipe()
		c := &hostPings{Conn: near, v4: tt.v4}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		go func() {
			b := make([]byte, 100)
			n, err := far.Read(b)
			if err != nil || n != 12 || b[0] != tt.request || string(b[6:n]) != "12ping" {
				t.Errorf("the socket is given %q, %v", b[:n], err)
			}
			_, _ = far.Write([]byte{3, 3, 0, 0, 0, 0, 0, 0, 'x'}) // of another kind
			_, _ = far.Write([]byte{tt.reply, 0})                 // cut off
			b[0] = tt.reply
			_, _ = far.Write(b[:n])
		}()
		if _, err := c.Write([]byte("12ping")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if n, err := c.Read(b); err != nil || string(b[:n]) != "12ping" {
			t.Errorf("%q, %v", b[:n], err)
		}
		if _, err := c.Write([]byte("1")); !errors.Is(err, syscall.EINVAL) {
			t.Error(err)
		}
		_ = near.Close()
	}
}

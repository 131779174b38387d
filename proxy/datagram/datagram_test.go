package datagram_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"corax/proxy/datagram"
)

func socket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func dial(t *testing.T, to *net.UDPConn) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// TestWait: the read after it gets the datagram whole, and waits for nothing.
func TestWait(t *testing.T) {
	var pool datagram.Pool
	far := socket(t)
	c := dial(t, far)
	for _, size := range []int{0, 1, 20, 1400, 65507} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		waited := make(chan error)
		go func() { waited <- datagram.Wait(c) }()
		if _, err := far.WriteTo(sent, c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := <-waited; err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		b := pool.Get()
		n, err := c.Read(b.Payload())
		if err != nil || !bytes.Equal(b.Payload()[:n], sent) {
			t.Errorf("%d of %d bytes, %v", n, size, err)
		}
		pool.Put(b)
	}
	pool.Put(nil)
}

func TestWaitFails(t *testing.T) {
	far := socket(t)
	for _, tt := range []struct {
		name string
		do   func(c *net.UDPConn)
		want error
	}{
		{"the deadline comes", func(c *net.UDPConn) { _ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) }, os.ErrDeadlineExceeded},
		{"it has come", func(c *net.UDPConn) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"it is closed", func(c *net.UDPConn) { _ = c.Close() }, net.ErrClosed},
		{"nobody is there", func(c *net.UDPConn) { _ = far.Close(); _, _ = c.Write([]byte("x")) }, syscall.ECONNREFUSED},
	} {
		c := dial(t, far)
		tt.do(c)
		if err := datagram.Wait(c); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// readable is a connection that says itself when it can be read.
type readable struct {
	net.Conn
	err error
}

func (r readable) Wait() error { return r.err }

func TestWaitForOthers(t *testing.T) {
	if err := datagram.Wait(readable{err: io.ErrNoProgress}); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := datagram.Wait(a); err != nil {
		t.Error(err)
	}
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"corax/proxy/outbound"
)

// streamsOf is an agent that connects as f does, and a client of it.
func streamsOf(t *testing.T, f func(ctx context.Context, to streamTarget) (net.Conn, error)) runDialer {
	t.Helper()
	socket, _ := startLocal(t, &fakeAgent{connect: f})
	c := newClient(socket)
	t.Cleanup(c.Close)
	return runDialer{c}
}

func echoDatagrams(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return c.LocalAddr().String()
}

func TestDatagramStreams(t *testing.T) {
	echo := echoDatagrams(t)
	closed := func() string { // nobody listens there any more
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}()
	d := streamsOf(t, func(_ context.Context, to streamTarget) (net.Conn, error) {
		switch to {
		case streamTarget{"udp", "10.2.0.9", 7}, streamTarget{"udp", "", 0}:
			return net.Dial("udp", echo)
		case streamTarget{"udp", "10.2.0.9", 9}:
			return net.Dial("udp", closed)
		default:
			return nil, errors.New("unexpected")
		}
	})
	open := func(c net.Conn, err error) net.Conn {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	b := make([]byte, maxDatagram)
	for _, c := range []net.Conn{
		open(d.DialUDP(t.Context(), netip.MustParseAddrPort("10.2.0.9:7"))), open(d.DialDNS(t.Context(), "udp")),
	} {
		for _, size := range []int{1, 0, 1500, 60000} {
			said := bytes.Repeat([]byte("x"), size)
			if _, err := c.Write(said); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(b); err != nil || !bytes.Equal(b[:n], said) {
				t.Errorf("%d bytes of %d, %v", n, size, err)
			}
		}
		// A deadline is no end.
		_ = c.SetReadDeadline(time.Unix(1, 0))
		if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write([]byte("again")); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); err != nil || string(b[:n]) != "again" {
			t.Errorf("%q, %v", b[:n], err)
		}
		if _, err := c.Write(make([]byte, maxDatagram+1)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Error(err)
		}
	}
	c := open(d.DialUDP(t.Context(), netip.MustParseAddrPort("10.2.0.9:9")))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(b); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("no socket there: %v", err)
	}
}

// TestStreamCauses: what the agent was refused is what the caller's program is told.
func TestStreamCauses(t *testing.T) {
	var fails error
	d := streamsOf(t, func(context.Context, streamTarget) (net.Conn, error) { return nil, fails })
	for _, tt := range []struct {
		is   error
		want syscall.Errno // zero: none
	}{
		{syscall.ECONNREFUSED, syscall.ECONNREFUSED},
		{outbound.ErrForbidden, syscall.EACCES},
		{outbound.ErrNoService, syscall.EHOSTUNREACH},
		{outbound.ErrNoName, syscall.EHOSTUNREACH},
		{syscall.ENETUNREACH, syscall.EHOSTUNREACH},
		{context.DeadlineExceeded, syscall.ETIMEDOUT},
		{errors.New("of another kind"), 0},
	} {
		fails = tt.is
		_, err := d.DialTCP(t.Context(), netip.MustParseAddrPort("10.2.0.9:7"))
		var errno syscall.Errno
		errors.As(err, &errno)
		if err == nil || errno != tt.want || err.Error() != tt.is.Error() {
			t.Errorf("%v became %v, %v", tt.is, err, errno)
		}
	}
	for _, query := range []url.Values{
		{},
		{"host": {"a"}},
		{"host": {"a"}, "port": {"0"}},
		{"host": {"a"}, "port": {"1"}, "network": {"sctp"}},
		{"host": {"a"}, "port": {"1"}, "dns": {"true"}},
	} {
		if s, err := d.client.Stream(t.Context(), query); err == nil {
			_ = s.Close()
			t.Errorf("%v is served", query)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.client.Stream(ctx, url.Values{"host": {"a"}, "port": {"1"}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// FuzzFrames: both readers understand the same, and nothing is read past the end.
func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, frameData, []byte("abc")), frameRefused, nil))
	f.Add([]byte{frameData, 0, 5, 1})
	f.Add([]byte{7, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		a, b := bytes.NewReader(in), make([]byte, maxDatagram)
		d := newDatagramConn(&streamConn{r: bufio.NewReader(bytes.NewReader(in))})
		c := make([]byte, maxDatagram)
		var again []byte
		for {
			n, err := readFrame(a, b)
			m, err2 := d.Read(c)
			if (err == nil) != (err2 == nil) || err == nil && !bytes.Equal(b[:n], c[:m]) || errors.Is(err, syscall.ECONNREFUSED) != errors.Is(err2, syscall.ECONNREFUSED) {
				t.Fatalf("%v and %v", err, err2)
			}
			if err != nil {
				break
			}
			again = appendFrame(again, frameData, b[:n])
		}
		if !bytes.HasPrefix(in, again) {
			t.Fatalf("%x became %x", in, again)
		}
		_, _ = io.Copy(io.Discard, a)
	})
}

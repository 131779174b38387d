package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"corax/dataplane"
)

// udpEcho answers datagrams for ports from 1000 on, and has no other.
type udpEcho struct{ asker }

func (*udpEcho) UDP(d *Datagram) {
	if d.To.Port() < 1000 {
		d.Site().Reject(d.Quote(), PortUnreachable)
		return
	}
	_ = d.Site().WriteUDP(d.To, d.From, d.Payload)
}

// twoSites are connected with each other.
func twoSites(t *testing.T) *Site {
	t.Helper()
	noLeaks(t)
	var a, b atomic.Pointer[Site]
	to := func(p *atomic.Pointer[Site]) dataplane.Sender {
		return dataplane.SenderFunc(func(batch []dataplane.Packet) {
			if s := p.Load(); s != nil {
				s.Send(batch)
			}
		})
	}
	a.Store(runSite(t, SiteConfig{Send: to(&b), Handler: &asker{}}))
	b.Store(runSite(t, SiteConfig{Send: to(&a), Handler: &udpEcho{}}))
	return a.Load()
}

func TestSiteSocketRefused(t *testing.T) {
	s := twoSites(t)
	for _, far := range []string{"10.2.0.9", "fd00:2::9"} {
		ip := netip.MustParseAddr(far)
		from := netip.MustParseAddr("10.1.0.1")
		if ip.Is6() {
			from = netip.MustParseAddr("fd00:1::1")
		}
		closed, open := netip.AddrPortFrom(ip, 9), netip.AddrPortFrom(ip, 1000)
		b := make([]byte, 100)

		c, err := s.DialUDP(t.Context(), from, closed)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s, connected: %v", far, err)
		}
		_ = c.Close()

		l, err := s.ListenUDP(from)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.SetDeadline(time.Now().Add(10 * time.Second))
		for range 2 { // it goes on
			for _, to := range []netip.AddrPort{closed, open} {
				if _, err := l.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(to)); err != nil {
					t.Fatal(err)
				}
				n, who, err := l.ReadFrom(b)
				var op *net.OpError
				switch {
				case to == open && (err != nil || n != 1 || who.String() != to.String()):
					t.Errorf("%s: %d bytes of %v, %v", far, n, who, err)
				case to == closed && (!errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &op) || op.Addr.String() != to.String()):
					t.Errorf("%s: %v", far, err)
				}
			}
		}
		_ = l.Close()
	}
}

// TestSiteSocketEnds: whoever reads is let go by a deadline, and by Close.
func TestSiteSocketEnds(t *testing.T) {
	s := twoSites(t)
	c, err := s.DialUDP(t.Context(), netip.MustParseAddr("10.1.0.1"), netip.MustParseAddrPort("10.2.0.9:1000"))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	_ = c.SetReadDeadline(time.Time{})
	ended := make(chan error, 1)
	reading, cancel := context.WithCancel(t.Context())
	go func() {
		cancel()
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	<-reading.Done()
	_ = c.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the reader is not let go")
	}
	s.sockets.Range(func(at, _ any) bool {
		t.Errorf("%v is remembered", at)
		return true
	})
}

// TestSiteSocketWait: Wait ends when a read would not block, whatever the read says.
func TestSiteSocketWait(t *testing.T) {
	s := twoSites(t)
	from, far := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.9")
	dial := func(port uint16) *udpSocket {
		c, err := s.DialUDP(t.Context(), from, netip.AddrPortFrom(far, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.(*udpSocket)
	}
	b := make([]byte, 100)
	open, closed := dial(1000), dial(9)
	for range 2 {
		_ = open.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if err := open.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("nothing is there: %v", err)
		}
		_ = open.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = open.Write([]byte("one"))
		if err := open.Wait(); err != nil {
			t.Fatal(err)
		}
		if n, err := open.Read(b); err != nil || string(b[:n]) != "one" {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	_ = closed.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = closed.Write([]byte("one"))
	if err := closed.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := closed.Read(b); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody is there: %v", err)
	}
	_ = open.SetReadDeadline(time.Time{})
	ended := make(chan error)
	go func() {
		err := open.Wait()
		if err == nil {
			_, err = open.Read(b)
		}
		ended <- err
	}()
	_ = open.Close()
	if err := <-ended; err == nil {
		t.Error("a socket that was closed can be read")
	}
}

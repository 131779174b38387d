package outbound

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"corax/proxy/proxytest"
)

var (
	pods = netip.MustParsePrefix("10.2.0.0/16")
	pod  = netip.MustParseAddr("10.2.0.9")
)

// tunnel leads to loopback, whatever the address, and notes what was dialled.
type tunnel struct {
	mu      sync.Mutex
	dialled []netip.AddrPort
	dns     uint16 // port that stands for 53
}

func (n *tunnel) local(to netip.AddrPort) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialled = append(n.dialled, to)
	port := to.Port()
	if port == 53 {
		port = n.dns
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()
}

func (n *tunnel) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", n.local(to))
}

func (n *tunnel) DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "udp", n.local(to))
}

func (n *tunnel) ListenUDP(bool) (net.PacketConn, error) {
	return net.ListenPacket("udp", "127.0.0.1:0")
}

func newDialer(t *testing.T, n *tunnel, dns netip.AddrPort) *Dialer {
	t.Helper()
	d, err := NewDialer(Config{Network: n, Reach: pods.Contains, DNS: dns})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// serveDNS answers questions for addresses, and returns its port.
func serveDNS(t *testing.T, names map[string][]string) uint16 {
	t.Helper()
	return proxytest.UDP(t, func(b []byte) []byte {
		var m dnsmessage.Message
		if m.Unpack(b) != nil || len(m.Questions) != 1 {
			return nil
		}
		q := m.Questions[0]
		m.Response, m.Additionals = true, nil
		list, ok := names[strings.TrimSuffix(q.Name.String(), ".")]
		if !ok {
			m.RCode = dnsmessage.RCodeNameError
		}
		for _, s := range list {
			a := netip.MustParseAddr(s)
			h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
			switch {
			case a.Is4() && q.Type == dnsmessage.TypeA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
			case a.Is6() && q.Type == dnsmessage.TypeAAAA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
			}
		}
		p, _ := m.Pack()
		return p
	}).Port()
}

func TestAddrs(t *testing.T) {
	n := &tunnel{}
	n.dns = serveDNS(t, map[string][]string{
		"web.shop.svc.cluster.local": {"10.2.0.9"}, "both.x": {"127.0.0.1", "10.2.0.9"},
		"evil.x": {"127.0.0.1"}, "meta.x": {"169.254.169.254"}, "six.x": {"::1"}, "empty.x": {},
	})
	dns := netip.MustParseAddrPort("10.2.0.53:53")
	for _, tt := range []struct {
		name, host, want string
		dns              netip.AddrPort
		err              error
	}{
		{"address", "10.2.0.9", "10.2.0.9", netip.AddrPort{}, nil},
		{"mapped", "::ffff:10.2.0.9", "10.2.0.9", netip.AddrPort{}, nil},
		{"elsewhere", "10.3.0.9", "", netip.AddrPort{}, ErrForbidden},
		{"loopback", "127.0.0.1", "", netip.AddrPort{}, ErrForbidden},
		{"mapped loopback", "::ffff:127.0.0.1", "", netip.AddrPort{}, ErrForbidden},
		{"zone", "fe80::1%eth0", "", netip.AddrPort{}, ErrForbidden},
		{"name", "web.shop.svc.cluster.local", "10.2.0.9", dns, nil},
		{"name with its dot", "web.shop.svc.cluster.local.", "10.2.0.9", dns, nil},
		{"name, the good one", "both.x", "10.2.0.9", dns, nil},
		{"name of loopback", "evil.x", "", dns, ErrForbidden},
		{"name of metadata", "meta.x", "", dns, ErrForbidden},
		{"name of ::1", "six.x", "", dns, ErrForbidden},
		{"no such name", "none.x", "", dns, ErrNoName},
		{"name without address", "empty.x", "", dns, ErrNoName},
		{"nobody to ask", "web.shop.svc.cluster.local", "", netip.AddrPort{}, ErrNoName},
		{"name server outside", "web.shop.svc.cluster.local", "", netip.MustParseAddrPort("192.0.2.1:53"), ErrNoName},
	} {
		got, err := newDialer(t, n, tt.dns).Addrs(t.Context(), tt.host)
		if !errors.Is(err, tt.err) || tt.err == nil && (len(got) != 1 || got[0].String() != tt.want) {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}

// freePort is one that nobody has now.
func freePort(t *testing.T, network string) netip.AddrPort {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// until tries f until it works.
func until(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

func TestMapsTCP(t *testing.T) {
	n := &tunnel{}
	ms, err := NewMaps(newDialer(t, n, netip.AddrPort{}), nil, []Map{
		{"tcp", freePort(t, "tcp"), pod.String(), proxytest.TCP(t, proxytest.AtEnd(bytes.ToUpper)).Port()},
		{"tcp", freePort(t, "tcp"), "127.0.0.1", 9},
	})
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Run(t, ms.Run)
	first := ms.List()[0]
	if first.Host != pod.String() {
		first = ms.List()[1]
	}
	ask := func(at netip.AddrPort) error {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("abc")); err != nil {
			return err
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		b, err := io.ReadAll(c)
		if err == nil && string(b) != "ABC" {
			err = errors.New("got " + string(b))
		}
		return err
	}
	until(t, func() error { return ask(first.Listen) })
	for _, m := range ms.List() {
		if m.Host == "127.0.0.1" && ask(m.Listen) == nil {
			t.Error("a forbidden destination was reached")
		}
	}
	if err := ms.Add(first.Map); !errors.Is(err, ErrExists) {
		t.Errorf("added twice: %v", err)
	}
	added := Map{"tcp", freePort(t, "tcp"), pod.String(), first.Port}
	if err := ms.Add(added); err != nil {
		t.Fatal(err)
	}
	until(t, func() error { return ask(added.Listen) })
	if err := ms.Remove(added); err != nil {
		t.Fatal(err)
	}
	if ask(added.Listen) == nil {
		t.Error("a removed map listens")
	}
	if err := ms.Remove(added); !errors.Is(err, ErrNoMap) {
		t.Errorf("removed twice: %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, to := range n.dialled {
		if !pods.Contains(to.Addr()) {
			t.Errorf("%s was dialled", to)
		}
	}
}

func TestMapsUDP(t *testing.T) {
	server := proxytest.UDP(t, bytes.ToUpper).Port()
	m := Map{"udp", freePort(t, "udp"), pod.String(), server}
	ms, err := NewMaps(newDialer(t, &tunnel{}, netip.AddrPort{}), nil, []Map{m})
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Run(t, ms.Run)
	for range 2 { // two programs, two flows
		c, err := net.Dial("udp", m.Listen.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		until(t, func() error {
			if _, err := c.Write([]byte("abc")); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			b := make([]byte, 10)
			n, err := c.Read(b)
			if err == nil && string(b[:n]) != "ABC" {
				err = errors.New("got " + string(b[:n]))
			}
			return err
		})
	}
	if s := ms.List()[0]; s.Open != 2 {
		t.Errorf("%d flows", s.Open)
	}
}

// TestMapTakenPort checks that a port in use is a problem, and no end.
func TestMapTakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ms, err := NewMaps(newDialer(t, &tunnel{}, netip.AddrPort{}), nil, []Map{{"tcp", ln.Addr().(*net.TCPAddr).AddrPort(), "10.2.0.9", 1}})
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Run(t, ms.Run)
	until(t, func() error {
		if p := ms.Problems(); len(p) != 1 || !strings.Contains(p[0], "address already in use") {
			return errors.New("no problem is told")
		}
		return nil
	})
}

//go:build linux

package rootless_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

const (
	trapPort   = 7610
	changeName = "changes.shop.svc.cluster.local"
	mixedName  = "mixed.shop.svc.cluster.local"
)

// metadata is what clouds answer on, as the host of the rootless agent does here.
func metadata() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200")}
}

// trap listens on every address of a host, and counts who comes.
func (w *world) trap(t *testing.T, h *lab.Host) *atomic.Int64 {
	t.Helper()
	for _, a := range metadata() {
		h.AddAddr("lo", netip.PrefixFrom(a, a.BitLen()))
	}
	ln, err := h.ListenTCP(netip.AddrPortFrom(netip.IPv6Unspecified(), trapPort))
	if err != nil {
		t.Fatal(err)
	}
	caught := new(atomic.Int64)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			caught.Add(1)
			_, _ = io.WriteString(c, "secret")
			_ = c.Close()
		}
	}()
	u, err := h.ListenUDP(netip.AddrPortFrom(netip.IPv6Unspecified(), trapPort))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 1500)
		for {
			if _, from, err := u.ReadFromUDPAddrPort(b); errors.Is(err, net.ErrClosed) {
				return
			} else if err == nil {
				caught.Add(1)
				_, _ = u.WriteToUDPAddrPort([]byte("secret"), from)
			}
		}
	}()
	if c, err := h.DialTCP(within(t, 5*time.Second), netip.AddrPortFrom(metadata()[0], trapPort)); err != nil {
		t.Fatalf("the trap does not work: %v", err)
	} else {
		_, _ = io.ReadAll(c)
		_ = c.Close()
	}
	caught.Store(0)
	return caught
}

// TestForbiddenOutbound has programs of a rootless site ask for what no tunnel
// carries, in every way and by every entry point: nothing of this host answers, and
// each refusal is counted.
func TestForbiddenOutbound(t *testing.T) {
	dns := netip.MustParseAddr("10.244.0.2") // the pod of the hub
	w := newWorld(t, true, "--socks-addr", socksAt, "--http-proxy-addr", httpAt, "--cluster-dns", dns.String())
	caught := w.trap(t, w.gw.Host)
	node := w.Domains[1].Nodes[0]
	overlay := netip.MustParseAddr(w.status().OverlayAddress)
	forbidden := append(metadata(), node.IP, node.IP6(), w.own.IP, w.own.IP6, overlay, netip.MustParseAddr("203.0.113.1"),
		netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), netip.MustParseAddr("127.1.2.3"),
		netip.MustParseAddr("::ffff:127.0.0.1"), netip.IPv4Unspecified(), netip.IPv6Unspecified(),
		netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("255.255.255.255"))
	var asked atomic.Int64
	if err := serveChanging(w.Domains[0].Nodes[0].Pods[0], dns, forbidden, w.far.IP, &asked); err != nil {
		t.Fatal(err)
	}
	hosts := []string{"localhost", "127.1", "2130706433", "0x7f000001", "017700000001"} // as inet_aton reads them
	for i, a := range forbidden {
		hosts = append(hosts, a.String(), forbiddenName(i))
	}
	before := w.status().Counters
	for _, host := range hosts {
		w.refusedByHTTP(t, host)
		w.refusedBySOCKS(t, host)
		if out, text, err := w.command(within(t, 20*time.Second), nil, "nc", host, fmt.Sprint(trapPort)); err == nil || out != "" {
			t.Errorf("corax nc %s: %q, %q, %v", host, out, text, err)
		}
	}
	w.counted(t, "outbound_drop_total{forbidden}", before["outbound_drop_total{forbidden}"]+uint64(6*len(forbidden)))
	w.refusedDatagrams(t, forbidden)

	// A name that is one thing when it is looked at, and another when it is used:
	// each answer is the pod or something of this host, in turn.
	for range 12 {
		if c, err := w.gw.Host.DialSOCKS(within(t, 20*time.Second), netip.MustParseAddrPort(socksAt), net.JoinHostPort(changeName, fmt.Sprint(podPort))); err == nil {
			_ = c.Close()
		}
		if c, err := w.gw.Host.DialSOCKS(within(t, 20*time.Second), netip.MustParseAddrPort(socksAt), net.JoinHostPort(changeName, fmt.Sprint(trapPort))); err == nil {
			_ = c.Close()
			t.Errorf("%s: connected with port %d", changeName, trapPort)
		}
	}
	if n := asked.Load(); n < 24 {
		t.Errorf("the name server was asked %d times only: a name was not looked up each time", n)
	}
	// Of a name with good and bad addresses the good ones are used.
	for range 3 {
		c, err := w.gw.Host.DialSOCKS(within(t, 20*time.Second), netip.MustParseAddrPort(socksAt), net.JoinHostPort(mixedName, fmt.Sprint(podPort)))
		if err != nil {
			t.Errorf("%s: %v", mixedName, err)
			continue
		}
		_ = c.Close()
	}
	if n := caught.Load(); n != 0 {
		t.Errorf("%d requests came to what is forbidden", n)
	}
}

func forbiddenName(i int) string { return fmt.Sprintf("evil-%d.shop.svc.cluster.local", i) }

// serveChanging is a name server: evil-N is the Nth forbidden address, changes is a
// forbidden one and the good one in turn, mixed is both.
func serveChanging(p *lab.Pod, at netip.Addr, forbidden []netip.Addr, good netip.Addr, asked *atomic.Int64) error {
	c, err := p.ListenUDP(netip.AddrPortFrom(at, 53))
	if err != nil {
		return err
	}
	answer := func(name string) []netip.Addr {
		switch name {
		case changeName + ".":
			if n := int(asked.Add(1)); n%2 == 0 {
				return []netip.Addr{forbidden[n/2%len(forbidden)]}
			}
			return []netip.Addr{good}
		case mixedName + ".":
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), good}
		}
		var i int
		if _, err := fmt.Sscanf(name, "evil-%d.", &i); err == nil && i < len(forbidden) {
			return []netip.Addr{forbidden[i]}
		}
		return nil
	}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			var m dnsmessage.Message
			if err != nil || m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Additionals = true, nil
			for _, a := range answer(strings.ToLower(q.Name.String())) {
				r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}}
				switch {
				case q.Type == dnsmessage.TypeA && a.Is4():
					r.Body = &dnsmessage.AResource{A: a.As4()}
				case q.Type == dnsmessage.TypeAAAA && a.Is6():
					r.Body = &dnsmessage.AAAAResource{AAAA: a.As16()}
				default:
					continue
				}
				m.Answers = append(m.Answers, r)
			}
			if out, err := m.Pack(); err == nil {
				_, _ = c.WriteToUDPAddrPort(out, from)
			}
		}
	}()
	return nil
}

// refusedByHTTP asks for a host by HTTP CONNECT.
func (w *world) refusedByHTTP(t *testing.T, host string) {
	t.Helper()
	c, err := w.gw.Host.DialTCP(within(t, 10*time.Second), netip.MustParseAddrPort(httpAt))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", net.JoinHostPort(host, fmt.Sprint(trapPort)))
	b, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(string(b), "HTTP/1.1 ") || strings.HasPrefix(string(b), "HTTP/1.1 2") {
		t.Errorf("HTTP CONNECT %s: %q, %v", host, b, err)
	}
}

// refusedBySOCKS asks for a host by SOCKS5.
func (w *world) refusedBySOCKS(t *testing.T, host string) {
	t.Helper()
	c, err := w.gw.Host.DialSOCKS(within(t, 20*time.Second), netip.MustParseAddrPort(socksAt), net.JoinHostPort(host, fmt.Sprint(trapPort)))
	if err == nil {
		_ = c.Close()
		t.Errorf("SOCKS5 %s: connected", host)
	}
}

// refusedDatagrams sends to forbidden addresses through UDP ASSOCIATE.
func (w *world) refusedDatagrams(t *testing.T, forbidden []netip.Addr) {
	t.Helper()
	c, err := w.gw.Host.DialTCP(within(t, 10*time.Second), netip.MustParseAddrPort(socksAt))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 12)
	if _, err := io.ReadFull(c, b); err != nil || b[3] != 0 {
		t.Fatalf("%x, %v", b, err)
	}
	u, err := w.gw.Host.DialUDP(netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[6:10])), binary.BigEndian.Uint16(b[10:])))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	before := w.status().Counters["outbound_drop_total{forbidden}"]
	for _, a := range forbidden {
		head := append([]byte{0, 0, 0, map[bool]byte{true: 1, false: 4}[a.Is4()]}, a.AsSlice()...)
		if _, err := u.Write(append(binary.BigEndian.AppendUint16(head, trapPort), "who?"...)); err != nil {
			t.Fatal(err)
		}
	}
	w.counted(t, "outbound_drop_total{forbidden}", before+uint64(len(forbidden)))
}

// TestForbiddenInbound: a site whose object says that loopback and metadata addresses
// are in its subnets, as a tampered one might, answers nobody there.
func TestForbiddenInbound(t *testing.T) {
	w := prepareWorld(t, true)
	edge := w.Domains[1]
	g := w.Object(edge, nil)
	var err error
	if g.Endpoints[0].PublicKey, err = w.gw.Key(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, a := range metadata() {
		g.Nodes[0].Subnets = append(slices.Clone(g.Nodes[0].Subnets), netip.PrefixFrom(a, a.BitLen()))
	}
	if err := g.Write(w.Gateways); err != nil {
		t.Fatal(err)
	}
	w.start()
	caught := w.trap(t, w.gw.Host)
	if _, err := w.far.EchoTCP(within(t, 20*time.Second), netip.AddrPortFrom(w.own.IP, podPort), 100); err != nil {
		t.Fatal(err)
	}
	reached := 0
	for _, a := range metadata() {
		to := netip.AddrPortFrom(a, trapPort)
		before := w.status().Counters["forward_drop_total{forbidden}"]
		c, err := w.far.DialTCP(within(t, 4*time.Second), to)
		if err == nil {
			_ = c.Close()
			t.Errorf("TCP %s: connected", to)
		}
		if u, err := w.far.DialUDP(to); err == nil {
			_, _ = u.Write([]byte("who?"))
			_ = u.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			b := make([]byte, 100)
			if n, err := u.Read(b); err == nil || bytes.Contains(b[:n], []byte("secret")) {
				t.Errorf("UDP %s: read %q, %v", to, b[:n], err)
			}
			_ = u.Close()
		}
		switch n := w.status().Counters["forward_drop_total{forbidden}"]; {
		case n > before:
			reached++
			if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EHOSTUNREACH) && err != nil {
				t.Errorf("TCP %s: %v, want prohibited", to, err)
			}
		default:
			t.Logf("%s never came to the site: %v", a, err)
		}
	}
	if reached == 0 {
		t.Error("nothing came to the site: the test shows nothing")
	}
	if n := caught.Load(); n != 0 {
		t.Errorf("%d requests came to what is forbidden", n)
	}
}

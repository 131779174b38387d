package socks

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"corax/proxy/outbound"
	"corax/proxy/proxytest"
)

// slow looks up names that begin with "slow" only when it is let go, and knows one
// Service, whose endpoint listens on loopback.
type slow struct {
	fake
	let     chan struct{}
	asked   chan string
	service netip.AddrPort
	to      netip.AddrPort
	refuse  chan error
}

func (s *slow) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if len(host) > 3 && host[:4] == "slow" {
		s.asked <- host
		select {
		case <-s.let:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if host == "service" || host == s.service.Addr().String() {
		return []netip.Addr{s.service.Addr()}, nil
	}
	return s.fake.Addrs(ctx, host)
}

func (s *slow) Targets(_ context.Context, _ string, at netip.AddrPort) ([]netip.AddrPort, error) {
	if at == s.service {
		return []netip.AddrPort{s.to}, nil
	}
	if at.Addr() == s.service.Addr() {
		return nil, outbound.ErrNoService
	}
	return []netip.AddrPort{at}, nil
}

func (s *slow) ListenUDP(v6 bool) (net.PacketConn, error) {
	c, err := s.fake.ListenUDP(v6)
	return &refusing{c, s.refuse}, err
}

// refusing reports what is put into its channel beside what comes.
type refusing struct {
	net.PacketConn
	errs chan error
}

func (r *refusing) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := r.PacketConn.ReadFrom(b)
	select {
	case e := <-r.errs:
		return 0, nil, e
	default:
		return n, from, err
	}
}

// associated is a client of UDP ASSOCIATE.
type associated struct {
	*net.UDPConn
	t *testing.T
}

func associate(t *testing.T, d Dialer) (*Server, *associated) {
	t.Helper()
	s, err := New(Config{Dialer: d})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Run(t, func(ctx context.Context) error { return s.ServeSOCKS(ctx, ln) })
	c := dial(t, ln.Addr().String())
	if _, err := c.Write(append([]byte{5, 1, 0}, request(3, "0", 0)...)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2+10)
	if _, err := io.ReadFull(c, b); err != nil || b[3] != 0 {
		t.Fatalf("%x, %v", b, err)
	}
	u, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[6:10])), binary.BigEndian.Uint16(b[10:]))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	_ = u.SetDeadline(time.Now().Add(10 * time.Second))
	return s, &associated{u, t}
}

func (a *associated) say(host string, port uint16, payload string) {
	a.t.Helper()
	p := append([]byte{0, 0, 0, 3, byte(len(host))}, host...)
	if _, err := a.Write(append(binary.BigEndian.AppendUint16(p, port), payload...)); err != nil {
		a.t.Fatal(err)
	}
}

// hear returns the next answer, and who it is said to come from.
func (a *associated) hear() (from netip.AddrPort, payload string) {
	a.t.Helper()
	b := make([]byte, 2000)
	n, err := a.Read(b)
	if err != nil || n < 10 || b[3] != 1 {
		a.t.Fatalf("%x, %v", b[:n], err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[8:])), string(b[10:n])
}

// TestSlowName: a name server that does not answer holds up nobody else, and what was
// sent meanwhile goes out when it does, up to a bound.
func TestSlowName(t *testing.T) {
	d := &slow{let: make(chan struct{}), asked: make(chan string, 1000)}
	to := proxytest.UDP(t, proxytest.Same)
	s, c := associate(t, d)
	for range maxWaiting + 3 {
		c.say("slow", to.Port(), "late")
	}
	if host := <-d.asked; host != "slow" {
		t.Fatal(host)
	}
	c.say("pod", to.Port(), "now")
	if _, got := c.hear(); got != "now" {
		t.Fatalf("got %q", got)
	}
	if n := s.datagrams.Load(); n != 3 {
		t.Errorf("%d datagrams dropped, want 3", n)
	}
	// Of further names only so many are looked up at once.
	for i := range maxLooking + 4 {
		c.say("slow-"+string(rune('a'+i)), to.Port(), "late")
	}
	c.say("pod", to.Port(), "still")
	if _, got := c.hear(); got != "still" {
		t.Fatalf("got %q", got)
	}
	if n := s.datagrams.Load(); n != 3+5 {
		t.Errorf("%d datagrams dropped, want 8", n)
	}
	close(d.let)
	for range maxWaiting + maxLooking - 1 {
		if _, got := c.hear(); got != "late" {
			t.Fatalf("got %q", got)
		}
	}
}

// TestSlowNameEnds: an association that ends does not wait for a name.
func TestSlowNameEnds(t *testing.T) {
	d := &slow{let: make(chan struct{}), asked: make(chan string, 1)}
	_, c := associate(t, d)
	c.say("slow", 9, "x")
	<-d.asked // the clean-up of associate ends it
}

// TestServiceDatagrams: datagrams for a Service go to an endpoint, and its answers come
// from the Service.
func TestServiceDatagrams(t *testing.T) {
	d := &slow{service: netip.MustParseAddrPort("10.96.0.10:53"), to: proxytest.UDP(t, proxytest.Same), refuse: make(chan error, 1)}
	s, c := associate(t, d)
	for _, host := range []string{"10.96.0.10", "service", "10.96.0.10"} {
		c.say(host, 53, host)
		if from, got := c.hear(); from != d.service || got != host {
			t.Errorf("%q from %v", got, from)
		}
	}
	c.say("10.96.0.10", 54, "no such port")
	// Who has no socket is asked no more, until something is sent there again.
	d.refuse <- &net.OpError{Op: "read", Net: "udp", Addr: net.UDPAddrFromAddrPort(d.to), Err: syscall.ECONNREFUSED}
	c.say("10.96.0.10", 53, "lost")
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ; s.refused.Load() != 1; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d refused", s.refused.Load())
		}
	}
	c.say("10.96.0.10", 53, "again")
	if from, got := c.hear(); from != d.service || got != "again" {
		t.Errorf("%q from %v", got, from)
	}
	if n, m := s.failed.Load(), s.datagrams.Load(); n != 1 || m != 1 {
		t.Errorf("%d failed, %d datagrams dropped", n, m)
	}
}

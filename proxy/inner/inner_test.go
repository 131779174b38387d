package inner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"corax/dataplane"
	"corax/dataplane/netstack"
	"corax/proxy/proxytest"
)

var (
	program    = netip.MustParseAddr("192.0.0.2")
	nameServer = netip.MustParseAddr("192.0.0.1")
	pod        = netip.MustParseAddr("10.2.0.9")
)

// dialer leads to loopback, and fails as the ports say.
type dialer struct {
	mu      sync.Mutex
	dialled []string
	tcp     string // where connections lead
	udp     string
}

const (
	portRefused = 1000 + iota
	portForbidden
	portUnreachable
	portSilent
	portMute // a flow that hears of no socket
	portEcho
)

func (d *dialer) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dialled = append(d.dialled, s)
}

func (d *dialer) fails(ctx context.Context, network string, to netip.AddrPort) error {
	d.note(network + " " + to.String())
	switch to.Port() {
	case portRefused:
		return fmt.Errorf("x: %w", syscall.ECONNREFUSED)
	case portForbidden:
		return fmt.Errorf("x: %w", syscall.EACCES)
	case portUnreachable:
		return errors.New("of no kind that is known")
	case portSilent:
		return fmt.Errorf("x: %w", context.DeadlineExceeded)
	default:
		return ctx.Err()
	}
}

func (d *dialer) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if err := d.fails(ctx, "tcp", to); err != nil {
		return nil, err
	}
	return net.Dial("tcp", d.tcp)
}

func (d *dialer) DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if err := d.fails(ctx, "udp", to); err != nil {
		return nil, err
	}
	if to.Port() == portMute {
		return net.Dial("udp", closedPort)
	}
	return net.Dial("udp", d.udp)
}

// DialPing leads to pingers that do what the last byte of the address says.
func (d *dialer) DialPing(_ context.Context, to netip.Addr) (net.Conn, error) {
	d.note("ping " + to.String())
	last := to.AsSlice()[len(to.AsSlice())-1]
	if last == pingForbidden {
		return nil, fmt.Errorf("x: %w", syscall.EACCES)
	}
	near, far := net.Pipe()
	go func() {
		b := make([]byte, 65536)
		for {
			n, err := far.Read(b)
			if err != nil {
				return
			}
			if last == pingUnreachable {
				_ = far.Close()
				return
			}
			if _, err := far.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	if last == pingUnreachable {
		return unreachableConn{near}, nil
	}
	return near, nil
}

// The last bytes of addresses that fail.
const (
	pingForbidden   = 66
	pingUnreachable = 67
)

// unreachableConn has an ICMP error instead of an end.
type unreachableConn struct{ net.Conn }

func (c unreachableConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		err = syscall.EHOSTUNREACH
	}
	return n, err
}

func (d *dialer) DialDNS(_ context.Context, network string) (net.Conn, error) {
	d.note("dns " + network)
	if network == "udp" {
		return net.Dial("udp", d.udp)
	}
	return net.Dial("tcp", d.tcp)
}

// closedPort is one of loopback that nobody listens on.
const closedPort = "127.0.0.1:1"

// rig is a program's namespace, a stack here, and the handler behind it.
type rig struct {
	*Handler
	d    *dialer
	from *netstack.Site
}

// silent handles nothing: what comes back to the program has its sockets.
type silent struct{}

func (silent) TCP(context.Context, *netstack.Attempt) {}
func (silent) UDP(*netstack.Datagram)                 {}
func (silent) Echo(*netstack.Echo)                    {}
func (silent) Lost(netstack.Lost)                     {}

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	r := &rig{d: &dialer{tcp: proxytest.TCP(t, proxytest.AtEnd(proxytest.Same)).String(), udp: proxytest.UDP(t, proxytest.Same).String()}}
	cfg.Dialer, cfg.NameServers = r.d, []netip.Addr{nameServer}
	var err error
	if r.Handler, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	var a, b atomic.Pointer[netstack.Site]
	to := func(p *atomic.Pointer[netstack.Site]) dataplane.Sender {
		return dataplane.SenderFunc(func(batch []dataplane.Packet) {
			if s := p.Load(); s != nil {
				s.Send(batch)
			}
		})
	}
	a.Store(site(t, to(&b), silent{}))
	b.Store(site(t, to(&a), r.Handler))
	r.from = a.Load()
	return r
}

func site(t *testing.T, send dataplane.Sender, h netstack.SiteHandler) *netstack.Site {
	t.Helper()
	s, err := netstack.NewSite(netstack.SiteConfig{MTU: 16384, Send: send, Handler: h})
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Run(t, s.Run)
	return s
}

func (r *rig) counter(name, reason string) uint64 {
	for _, c := range r.Counters() {
		if c.Name == name && c.Reason == reason {
			return c.Value
		}
	}
	return 0
}

func (r *rig) wait(t *testing.T, name, reason string, want uint64) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for r.counter(name, reason) != want {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s %s is %d, want %d", name, reason, r.counter(name, reason), want)
		}
	}
}

func TestTCP(t *testing.T) {
	r := newRig(t, Config{})
	for _, tt := range []struct {
		name   string
		to     netip.AddrPort
		err    error // of the program
		reason string
	}{
		{"connected", netip.AddrPortFrom(pod, portEcho), nil, ""},
		{"name server", netip.AddrPortFrom(nameServer, 53), nil, ""},
		{"another port of it", netip.AddrPortFrom(nameServer, 80), syscall.ECONNREFUSED, "refused"},
		{"refused", netip.AddrPortFrom(pod, portRefused), syscall.ECONNREFUSED, "refused"},
		{"silent", netip.AddrPortFrom(pod, portSilent), context.DeadlineExceeded, "silent"},
		{"unreachable", netip.AddrPortFrom(pod, portUnreachable), syscall.EHOSTUNREACH, "unreachable"},
		{"forbidden", netip.AddrPortFrom(pod, portForbidden), syscall.EHOSTUNREACH, "forbidden"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			patience := 10 * time.Second
			if tt.reason == "silent" {
				patience = 500 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			before := r.counter("run_drop_total", tt.reason)
			c, err := r.from.DialTCP(ctx, program, tt.to)
			if tt.err != nil {
				if c != nil || !errors.Is(err, tt.err) && tt.reason != "forbidden" && tt.reason != "unreachable" {
					t.Errorf("%v, want %v", err, tt.err)
				}
				if r.counter("run_drop_total", tt.reason) == before {
					t.Error("not counted")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			said := strings.Repeat("said ", 50_000)
			go func() {
				_, _ = io.WriteString(c, said)
				_ = c.(interface{ CloseWrite() error }).CloseWrite()
			}()
			if b, err := io.ReadAll(c); err != nil || string(b) != said {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
	}
	if all := strings.Join(r.d.dialled, ", "); !strings.Contains(all, "dns tcp") || strings.Contains(all, nameServer.String()) {
		t.Error("dialled " + all)
	}
}

func TestUDP(t *testing.T) {
	r := newRig(t, Config{})
	b := make([]byte, maxDatagram)
	dial := func(to netip.Addr, port uint16) net.Conn {
		c, err := r.from.DialUDP(t.Context(), program, netip.AddrPortFrom(to, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(pod, portEcho), netip.AddrPortFrom(nameServer, 53)} {
		c := dial(to.Addr(), to.Port())
		for _, size := range []int{0, 1, 1200, 20000} {
			said := strings.Repeat("x", size)
			if _, err := c.Write([]byte(said)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(b); err != nil || string(b[:n]) != said {
				t.Errorf("%v: %d bytes of %d, %v", to, n, size, err)
			}
		}
	}
	for _, port := range []uint16{portRefused, portMute} {
		c := dial(pod, port)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port %d: %v", port, err)
		}
	}
	if n := r.counter("run_drop_total", "refused"); n != 2 {
		t.Errorf("%d refused", n)
	}
	c := dial(pod, portForbidden)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	r.wait(t, "run_drop_total", "forbidden", 1)
}

// TestLimits: what is too much is dropped and counted, and what is open stays.
func TestLimits(t *testing.T) {
	r := newRig(t, Config{Connections: 1, Flows: 1})
	c, err := r.from.DialTCP(t.Context(), program, netip.AddrPortFrom(pod, portEcho))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if second, err := r.from.DialTCP(ctx, program, netip.AddrPortFrom(pod, portEcho)); err == nil {
		_ = second.Close()
		t.Error("a second connection")
	}
	if n := r.counter("run_drop_total", "full"); n == 0 {
		t.Error("not counted")
	}
	for i := range 2 {
		u, err := r.from.DialUDP(t.Context(), program, netip.AddrPortFrom(pod, portEcho))
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		before := r.counter("run_drop_total", "full")
		_ = u.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := u.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			r.wait(t, "run_drop_total", "full", before+1)
			break
		}
		if _, err := u.Read(make([]byte, 10)); err != nil {
			t.Error(err)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a handler without dialer")
	}
}

// TestLost: a program that closed its socket ends its flow, so that the next one from
// that port is not given answers to it.
func TestLost(t *testing.T) {
	r := newRig(t, Config{})
	c, err := r.from.DialUDP(t.Context(), program, netip.AddrPortFrom(pod, portEcho))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	from := c.LocalAddr().(*net.UDPAddr).AddrPort()
	r.Lost(netstack.Lost{From: netip.AddrPortFrom(pod, portEcho), To: from})
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		n := len(r.flows)
		r.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the flow lives")
		}
	}
}

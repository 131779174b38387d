package portmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"corax/nat/portmap/portmaptest"
)

func startGateway(t *testing.T, cfg portmaptest.Config) *portmaptest.Gateway {
	t.Helper()
	g, err := portmaptest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return g
}

func testClient() *client {
	c := &client{open: func(f func() error) error { return f() }, nonce: testNonce()}
	c.source6 = c.globalSource
	return c
}

func dropped(c *client, r dropReason) uint64 { return c.drops[r].Load() }

func TestPreference(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  portmaptest.Config
		want Protocol
	}{
		{"all", portmaptest.Config{PCP: true, NATPMP: true, UPnP: true}, PCP},
		{"no PCP", portmaptest.Config{NATPMP: true, UPnP: true}, NATPMP},
		{"PCP only", portmaptest.Config{PCP: true}, PCP},
		{"UPnP only", portmaptest.Config{UPnP: true}, UPnP},
		{"UPnP version 2", portmaptest.Config{UPnP: true, IGD: portmaptest.IGD{Service: "WANIPConnection:2"}}, UPnP},
		{"UPnP over PPP", portmaptest.Config{UPnP: true, IGD: portmaptest.IGD{Service: "WANPPPConnection:1"}}, UPnP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			gw := startGateway(t, tt.cfg)
			c := testClient()
			g, err := c.mapAny(t.Context(), []netip.Addr{gw.Addr()}, ask{4500, 5500})
			if err != nil {
				t.Fatal(err)
			}
			if want := netip.MustParseAddrPort("203.0.113.1:5500"); g.proto != tt.want || g.external != want || g.gateway != gw.Addr() {
				t.Errorf("%v maps %v at %v, want %v, %v", g.proto, g.external, g.gateway, tt.want, want)
			}
			ms := gw.Mappings()
			if len(ms) != 1 || ms[0].Internal.Port() != 4500 || ms[0].Protocol != map[Protocol]string{PCP: "PCP", NATPMP: "NAT-PMP", UPnP: "UPnP"}[tt.want] {
				t.Fatalf("the router has %+v", ms)
			}
			g2, err := c.renew(t.Context(), g, ask{4500, g.external.Port()})
			if err != nil || g2.external != g.external || len(gw.Mappings()) != 1 {
				t.Errorf("renewed: %v, %v; the router has %+v", g2.external, err, gw.Mappings())
			}
			if err := c.remove(t.Context(), g); err != nil {
				t.Error(err)
			}
			if ms := gw.Mappings(); len(ms) != 0 {
				t.Errorf("left at the router: %+v", ms)
			}
		})
	}
}

// TestFallsBack: a protocol that refuses leaves the way to the next.
func TestFallsBack(t *testing.T) {
	t.Parallel()
	gw := startGateway(t, portmaptest.Config{PCP: true, NATPMP: true, UPnP: true})
	gw.SetFault(portmaptest.Fault{PCPResult: uint8(pcpUserExQuota), PMPResult: uint16(pmpOutOfResources)})
	g, err := testClient().mapAny(t.Context(), []netip.Addr{gw.Addr()}, ask{4500, 4500})
	if err != nil || g.proto != UPnP {
		t.Fatalf("%v, %v; want UPnP", g.proto, err)
	}
	gw2 := startGateway(t, portmaptest.Config{PCP: true})
	gw2.SetFault(portmaptest.Fault{PCPResult: uint8(pcpUserExQuota), ErrorLifetime: 600})
	_, err = testClient().mapAny(t.Context(), []netip.Addr{gw2.Addr()}, ask{4500, 4500})
	e, ok := errors.AsType[*RefusedError](err)
	if !ok || e.Protocol != PCP || e.Code != int(pcpUserExQuota) || e.Lasts != 10*time.Minute {
		t.Errorf("%v, want the quota's refusal", err)
	}
	g, err = testClient().mapAny(t.Context(), []netip.Addr{gw2.Addr(), gw.Addr()}, ask{4500, 4500})
	if err != nil || g.gateway != gw.Addr() {
		t.Errorf("%v, %v; want the second router", g.gateway, err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	if _, err := testClient().mapAny(t.Context(), nil, ask{4500, 4500}); !errors.Is(err, ErrNoGateway) {
		t.Errorf("no router: %v", err)
	}
	silent := startGateway(t, portmaptest.Config{PCP: true})
	silent.SetFault(portmaptest.Fault{Silent: true})
	start := time.Now()
	_, err := testClient().mapAny(t.Context(), []netip.Addr{silent.Addr()}, ask{4500, 4500})
	if !errors.Is(err, ErrSilent) {
		t.Errorf("a silent router: %v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("waited %v", d)
	}
	if n := silent.Requests("announce"); n != len(waits()) {
		t.Errorf("PCP was asked %d times, want %d", n, len(waits()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := testClient().mapAny(ctx, []netip.Addr{silent.Addr()}, ask{4500, 4500}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestForgedAnswers puts forged packets in front of the right answer: they are
// counted, and the right one counts.
func TestForgedAnswers(t *testing.T) {
	t.Parallel()
	forge := func(f func(b []byte) []byte) func(req, resp []byte) [][]byte {
		return func(_, resp []byte) [][]byte { return [][]byte{f(bytes.Clone(resp))} }
	}
	tests := []struct {
		name   string
		cfg    portmaptest.Config
		before func(req, resp []byte) [][]byte
		want   dropReason
	}{
		{"wrong nonce", portmaptest.Config{PCP: true}, forge(func(b []byte) []byte {
			if len(b) >= 36 {
				b[30] ^= 1
				b[43] ^= 1 // and another port
			}
			return b
		}), dropNonce},
		{"short", portmaptest.Config{PCP: true}, forge(func(b []byte) []byte { return b[:20] }), dropShort},
		{"cut in the data", portmaptest.Config{PCP: true}, forge(func(b []byte) []byte { return b[:min(len(b), 40)&^3-4] }), dropShort},
		{"a request", portmaptest.Config{PCP: true}, forge(func(b []byte) []byte { b[1] &^= 0x80; return b }), dropNotResponse},
		{"garbage", portmaptest.Config{PCP: true}, forge(func([]byte) []byte { return bytes.Repeat([]byte{0xa5}, 1500) }), dropVersion},
		{"another version", portmaptest.Config{PCP: true}, forge(func(b []byte) []byte { b[0] = 3; return b }), dropVersion},
		{"NAT-PMP garbage", portmaptest.Config{NATPMP: true}, forge(func([]byte) []byte { return []byte{0xff, 0xff, 0xff, 0xff, 0xff} }), dropVersion},
		{"NAT-PMP short", portmaptest.Config{NATPMP: true}, forge(func(b []byte) []byte { return b[:6] }), dropShort},
		{"NAT-PMP for another port", portmaptest.Config{NATPMP: true}, forge(func(b []byte) []byte {
			if len(b) == 16 {
				b[9] ^= 1
			}
			return b
		}), dropMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			gw := startGateway(t, tt.cfg)
			gw.SetFault(portmaptest.Fault{Before: tt.before})
			c := testClient()
			g, err := c.mapAny(t.Context(), []netip.Addr{gw.Addr()}, ask{4500, 5500})
			if err != nil || g.external.Port() != 5500 {
				t.Fatalf("%v, %v; want port 5500", g.external, err)
			}
			if dropped(c, tt.want) == 0 {
				t.Errorf("nothing counted as %v", tt.want)
			}
		})
	}
}

// TestUselessGrants: successes that are none.
func TestUselessGrants(t *testing.T) {
	t.Parallel()
	set := func(at int, v ...byte) func(req, resp []byte) [][]byte {
		return func(_, resp []byte) [][]byte {
			b := bytes.Clone(resp)
			if len(b) >= at+len(v) {
				copy(b[at:], v)
			}
			return [][]byte{b}
		}
	}
	tests := []struct {
		name    string
		cfg     portmaptest.Config
		instead func(req, resp []byte) [][]byte
	}{
		{"PCP port 0", portmaptest.Config{PCP: true}, set(42, 0, 0)},
		{"PCP address 0.0.0.0", portmaptest.Config{PCP: true}, set(56, 0, 0, 0, 0)},
		{"PCP address of the other family", portmaptest.Config{PCP: true}, set(44, 0x20, 0x01)},
		{"NAT-PMP address 0.0.0.0", portmaptest.Config{NATPMP: true}, set(8, 0, 0, 0, 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			gw := startGateway(t, tt.cfg)
			gw.SetFault(portmaptest.Fault{Instead: tt.instead})
			c := testClient()
			if g, err := c.mapAny(t.Context(), []netip.Addr{gw.Addr()}, ask{4500, 5500}); err == nil {
				t.Fatalf("mapped %v", g.external)
			}
			if ms := gw.Mappings(); len(ms) != 0 {
				t.Errorf("left at the router: %+v", ms)
			}
		})
	}
}

// TestLifetimes: what the router grants is used within bounds.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	gw := startGateway(t, portmaptest.Config{PCP: true})
	for _, tt := range []struct {
		granted uint32
		want    time.Duration
	}{{1, minLife}, {600, 10 * time.Minute}, {1 << 31, maxLife}} {
		gw.SetFault(portmaptest.Fault{Instead: func(_, resp []byte) [][]byte {
			b := bytes.Clone(resp)
			binary.BigEndian.PutUint32(b[4:], tt.granted)
			return [][]byte{b}
		}})
		g, err := testClient().mapPCP(t.Context(), gw.Addr(), ask{4500, 4500})
		if err != nil || g.lifetime != tt.want {
			t.Errorf("granted %d s: %v, %v; want %v", tt.granted, g.lifetime, err, tt.want)
		}
	}
}

// TestAnotherNonce: a restarted agent gets its mapping back with the same nonce
// only, or by NAT-PMP.
func TestAnotherNonce(t *testing.T) {
	t.Parallel()
	gw := startGateway(t, portmaptest.Config{PCP: true})
	if _, err := testClient().mapPCP(t.Context(), gw.Addr(), ask{4500, 4500}); err != nil {
		t.Fatal(err)
	}
	if _, err := testClient().mapPCP(t.Context(), gw.Addr(), ask{4500, 4500}); err != nil {
		t.Errorf("the same nonce: %v", err)
	}
	other := testClient()
	other.nonce[0]++
	_, err := other.mapPCP(t.Context(), gw.Addr(), ask{4500, 4500})
	if e, ok := errors.AsType[*RefusedError](err); !ok || e.Code != int(pcpNotAuthorized) {
		t.Errorf("another nonce: %v", err)
	}
}

// TestPinhole opens an IPv6 pinhole; a loopback has no global address, so the
// answer's is the loopback's.
func TestPinhole(t *testing.T) {
	t.Parallel()
	gw := startGateway(t, portmaptest.Config{Addr: netip.IPv6Loopback(), PCP: true, NATPMP: true})
	c := testClient()
	c.source6 = func() (netip.Addr, error) { return netip.IPv6Loopback(), nil }
	g, err := c.mapAny(t.Context(), []netip.Addr{gw.Addr()}, ask{4500, 4500})
	if err != nil || g.proto != PCP || g.external != netip.MustParseAddrPort("[::1]:4500") {
		t.Fatalf("%v %v, %v", g.proto, g.external, err)
	}
	if gw.Requests("external") != 0 || gw.Requests("pmp map") != 0 {
		t.Error("NAT-PMP was tried over IPv6")
	}
	if err := c.remove(t.Context(), g); err != nil || len(gw.Mappings()) != 0 {
		t.Errorf("%v; left at the router: %+v", err, gw.Mappings())
	}
}

func TestMapper(t *testing.T) {
	t.Parallel()
	gw := startGateway(t, portmaptest.Config{PCP: true, NATPMP: true, External: netip.MustParseAddr("198.51.100.7")})
	changed := make(chan struct{}, 16)
	m, err := New(Config{Gateways: func() []netip.Addr { return []netip.Addr{gw.Addr()} }, Port: 4500, Changed: func() { changed <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	m.Want(true)
	m.Want(true)
	next := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: nothing changed; %+v", what, m.Status())
		}
	}
	next("mapping")
	if got, p, ok := m.Mapping(); !ok || p != PCP || got != netip.MustParseAddrPort("198.51.100.7:4500") {
		t.Fatalf("%v %v %t", got, p, ok)
	}
	if s := m.Status().IPv4.String(); s != "PCP maps 198.51.100.7:4500" {
		t.Errorf("status %q", s)
	}
	if s := m.Status().IPv6; !errors.Is(s.Err, ErrNoGateway) {
		t.Errorf("IPv6: %v", s)
	}
	// A reboot with a new address behind another NAT, seen after a poke.
	gw.Reboot()
	gw.SetExternal(netip.MustParseAddr("10.0.0.2"))
	m.Poke()
	next("double NAT")
	if _, _, ok := m.Mapping(); ok || !m.Status().IPv4.DoubleNAT || m.Status().IPv4.Reboots != 1 {
		t.Errorf("%+v", m.Status().IPv4)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if ms := gw.Mappings(); len(ms) != 0 {
		t.Errorf("left at the router: %+v", ms)
	}
}

func TestNew(t *testing.T) {
	if _, err := New(Config{Port: 1}); err == nil {
		t.Error("no Gateways: no error")
	}
	if _, err := New(Config{Gateways: oneGateway}); err == nil {
		t.Error("no Port: no error")
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	all := startGateway(t, portmaptest.Config{PCP: true, NATPMP: true, UPnP: true, External: netip.MustParseAddr("100.64.1.1")})
	pmp := startGateway(t, portmaptest.Config{NATPMP: true})
	none := startGateway(t, portmaptest.Config{})
	tests := []struct {
		name string
		gws  []netip.Addr
		want string
	}{
		{"all", []netip.Addr{all.Addr()}, "the router maps ports by PCP, NAT-PMP, UPnP IGD; its external address 100.64.1.1 is not public: there is another NAT in front of it"},
		{"one", []netip.Addr{pmp.Addr()}, "the router maps ports by NAT-PMP; its external address is 203.0.113.1"},
		{"none", []netip.Addr{none.Addr()}, "the router maps no ports: PCP: not spoken: the port is closed; NAT-PMP: not spoken: the port is closed; UPnP IGD: "},
		{"no router", nil, "no default router"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := New(Config{Gateways: func() []netip.Addr { return tt.gws }, Port: 4500})
			if err != nil {
				t.Fatal(err)
			}
			r := m.Probe(t.Context())
			if got := r.String(); got != tt.want && (tt.name != "none" || len(got) < len(tt.want) || got[:len(tt.want)] != tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	if len(all.Mappings())+len(pmp.Mappings()) != 0 {
		t.Error("a probe mapped something")
	}
}

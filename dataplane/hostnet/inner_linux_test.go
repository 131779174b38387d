package hostnet

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"corax/dataplane"
)

func TestInnerConfig(t *testing.T) {
	a4, b4, a6 := netip.MustParseAddr("192.0.0.2"), netip.MustParseAddr("192.0.0.3"), netip.MustParseAddr("fd00::2")
	for _, tt := range []struct {
		name string
		cfg  InnerConfig
		ok   bool
	}{
		{"both families", InnerConfig{"tun9", 1500, []netip.Addr{a4, a6}}, true},
		{"one", InnerConfig{"tun9", 1500, []netip.Addr{a6}}, true},
		{"none", InnerConfig{"tun9", 1500, nil}, false},
		{"two of a family", InnerConfig{"tun9", 1500, []netip.Addr{a4, b4}}, false},
		{"a zone", InnerConfig{"tun9", 1500, []netip.Addr{a6.WithZone("x")}}, false},
		{"three", InnerConfig{"tun9", 1500, []netip.Addr{a4, a6, b4}}, false},
		{"small MTU", InnerConfig{"tun9", 1000, []netip.Addr{a4}}, false},
	} {
		if err := tt.cfg.check(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestInner: in a namespace that OpenInner set up, whatever a program sends comes out
// of the descriptor, and what is sent to that arrives.
func TestInner(t *testing.T) {
	tunNamespace(t)
	addrs := []netip.Addr{netip.MustParseAddr("192.0.0.2"), netip.MustParseAddr("fd72:756e::2")}
	f, err := OpenInner(InnerConfig{Name: tunName, MTU: 16384, Addrs: addrs})
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan []byte, 100)
	tun, err := AttachTUN(TUNConfig{Name: tunName, MTU: 16384, Receive: dataplane.SenderFunc(func(b []dataplane.Packet) {
		for _, p := range b {
			came <- slices.Clone(p.Data)
		}
	})}, f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tun.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := tun.Close(); err != nil {
			t.Error(err)
		}
	})
	lo, err := netlink.LinkByName("lo")
	if err != nil || lo.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("loopback is down: %v", err)
	}
	for _, to := range []string{"203.0.113.7:9", "[2001:db8::7]:9"} {
		dst := netip.MustParseAddrPort(to)
		c, err := net.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write([]byte("there")); err != nil {
			t.Fatal(err)
		}
		from := c.LocalAddr().(*net.UDPAddr).AddrPort()
		if !slices.Contains(addrs, from.Addr()) {
			t.Errorf("%s is sent to from %s", to, from)
		}
		p := within(t, came, func(p []byte) bool { return isUDP(p) && portsOf(p) == [2]uint16{from.Port(), 9} })
		tun.Send([]dataplane.Packet{{Data: answerTo(p)}})
		b := make([]byte, 100)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(b); err != nil || string(b[:n]) != "there" {
			t.Errorf("%s: %q, %v", dst, b[:n], err)
		}
	}
	if err := tun.SetMTU(1500); err == nil {
		t.Error("the MTU of a device in another namespace was set")
	}
}

func within(t *testing.T, packets <-chan []byte, ok func([]byte) bool) []byte {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		select {
		case p := <-packets:
			if ok(p) {
				return p
			}
		case <-late:
			t.Fatal("no such packet")
		}
	}
}

func ipHead(p []byte) int {
	if p[0]>>4 == 4 {
		return 20
	}
	return 40
}

func isUDP(p []byte) bool {
	return p[0]>>4 == 4 && p[9] == 17 || p[0]>>4 == 6 && p[6] == 17
}

func portsOf(p []byte) [2]uint16 {
	u := p[ipHead(p):]
	return [2]uint16{uint16(u[0])<<8 | uint16(u[1]), uint16(u[2])<<8 | uint16(u[3])}
}

// answerTo swaps the ends of a UDP packet, which leaves its checksums as they are.
func answerTo(p []byte) []byte {
	n := ipHead(p)
	at, size := 12, 4
	if n == 40 {
		at, size = 8, 16
	}
	out := slices.Clone(p)
	copy(out[at:], p[at+size:at+2*size])
	copy(out[at+size:], p[at:at+size])
	copy(out[n:], p[n+2:n+4])
	copy(out[n+2:], p[n:n+2])
	return out
}

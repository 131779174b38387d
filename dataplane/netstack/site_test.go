package netstack

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"corax/dataplane"
)

// asker notes what a Site asks.
type asker struct {
	tcp  func(ctx context.Context, a *Attempt)
	mu   sync.Mutex
	lost []Lost
}

func (h *asker) TCP(ctx context.Context, a *Attempt) { h.tcp(ctx, a) }
func (h *asker) UDP(d *Datagram)                     { d.Site().Reject(d.Quote(), PortUnreachable) }
func (h *asker) Echo(e *Echo)                        { e.Site().Reject(e.Quote(), Prohibited) }

func (h *asker) Lost(l Lost) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = append(h.lost, l)
}

func siteNoLeaks(t *testing.T, cfg SiteConfig) *Site {
	t.Helper()
	noLeaks(t)
	return runSite(t, cfg)
}

// runSite runs a Site until the test ends.
func runSite(t *testing.T, cfg SiteConfig) *Site {
	t.Helper()
	s, err := NewSite(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	return s
}

// TestSiteAbandons checks that an end which never acknowledges can be given up, and
// that a Site which is closed does not wait for it.
func TestSiteAbandons(t *testing.T) {
	sent := make(chan []byte, 64)
	send := dataplane.SenderFunc(func(b []dataplane.Packet) {
		for _, p := range b {
			sent <- append([]byte{}, p.Data...)
		}
	})
	from, to := netip.MustParseAddrPort("10.2.0.9:4000"), netip.MustParseAddrPort("10.1.0.2:80")
	for _, how := range []string{"abandoned", "closed"} {
		t.Run(how, func(t *testing.T) {
			result := make(chan error, 1)
			attempt := make(chan *Attempt, 1)
			s := siteNoLeaks(t, SiteConfig{Send: send, Handler: &asker{tcp: func(_ context.Context, a *Attempt) {
				attempt <- a
				_, err := a.Accept()
				result <- err
			}}})
			syn := resetOf(from, to, 7)
			h := header.TCP(syn[20:])
			h.SetFlags(uint8(header.TCPFlagSyn))
			h.SetChecksum(0)
			h.SetChecksum(^h.CalculateChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, address(from.Addr()), address(to.Addr()), 20)))
			s.Send([]dataplane.Packet{{Data: syn}})
			a := <-attempt
			if p := <-sent; header.TCP(p[20:]).Flags() != header.TCPFlagSyn|header.TCPFlagAck {
				t.Fatalf("sent %x", p)
			}
			if how == "abandoned" {
				a.abandon()
			} else if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-result:
				if err == nil {
					t.Error("accepted")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("Accept does not end")
			}
		})
	}
}

func TestSiteRefusesConfig(t *testing.T) {
	send := dataplane.SenderFunc(func([]dataplane.Packet) {})
	for name, cfg := range map[string]SiteConfig{
		"no sender":  {Handler: &asker{}},
		"no handler": {Send: send},
		"small MTU":  {Send: send, Handler: &asker{}, MTU: 1000},
	} {
		if _, err := NewSite(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSiteDropsWhenClosed(t *testing.T) {
	noLeaks(t)
	s, err := NewSite(SiteConfig{Send: dataplane.SenderFunc(func([]dataplane.Packet) {}), Handler: &asker{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Send([]dataplane.Packet{{Data: make([]byte, 20)}})
	if s.count.closed.Load() != 1 {
		t.Error("not counted")
	}
	if s.Go(func(context.Context) {}) {
		t.Error("a closed Site starts something")
	}
	from := netip.MustParseAddrPort("10.1.0.2:1")
	if err := s.WriteUDP(from, from, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want closed", err)
	}
}

func TestAttempts(t *testing.T) {
	var a attempts
	a.init(3, 2)
	id := func(host byte, port uint16) (r stack.TransportEndpointID) {
		r.RemoteAddress, r.RemotePort = address(netip.AddrFrom4([4]byte{10, 0, 0, host})), port
		return r
	}
	for i, tt := range []struct {
		host byte
		port uint16
		want bool
	}{{1, 1, true}, {1, 1, false}, {1, 2, true}, {1, 3, false}, {2, 1, true}, {3, 1, false}} {
		if got := a.add(id(tt.host, tt.port), &Attempt{}); got != tt.want {
			t.Errorf("step %d: %t", i, got)
		}
	}
	if a.full.Load() != 1 || a.source.Load() != 1 {
		t.Errorf("full %d, source %d", a.full.Load(), a.source.Load())
	}
	a.remove(id(1, 1))
	a.remove(id(1, 1))
	if !a.add(id(1, 3), &Attempt{}) || len(a.sources) != 2 {
		t.Error("no room after one has gone")
	}
}

func TestLimitedICMP(t *testing.T) {
	var l limitedICMP
	now := time.Unix(1000, 0)
	for range icmpPerSecond {
		if !l.allow(now) {
			t.Fatal("too early")
		}
	}
	if l.allow(now.Add(999 * time.Millisecond)) {
		t.Error("too many in a second")
	}
	if !l.allow(now.Add(time.Second)) || l.dropped.Load() != 1 {
		t.Error("none in the next one, or miscounted")
	}
}

func FuzzParseLost(f *testing.F) {
	from, to := netip.MustParseAddrPort("10.1.0.2:53"), netip.MustParseAddrPort("10.2.0.9:4000")
	f.Add(lostPacket(from, to))
	f.Add(lostPacket(netip.MustParseAddrPort("[fd00:1::2]:53"), netip.MustParseAddrPort("[fd00:2::9]:4000")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := parseLost(b); ok && l.From.Addr().Is4() != (b[0]>>4 == 4) {
			t.Errorf("%x: %v", b, l)
		}
	})
}

func TestParseLost(t *testing.T) {
	for _, tt := range []struct{ from, to string }{
		{"10.1.0.2:53", "10.2.0.9:4000"}, {"[fd00:1::2]:53", "[fd00:2::9]:4000"},
	} {
		from, to := netip.MustParseAddrPort(tt.from), netip.MustParseAddrPort(tt.to)
		p := lostPacket(from, to)
		if l, ok := parseLost(p); !ok || l != (Lost{from, to}) {
			t.Errorf("%s: %v, %t", tt.from, l, ok)
		}
		for i := range p {
			parseLost(p[:i])
		}
		other := append([]byte{}, p...)
		other[ipLen(from.Addr())-1]++ // for another host
		if _, ok := parseLost(other); ok {
			t.Errorf("%s: taken from a stranger", tt.from)
		}
	}
}

// lostPacket says that to has no socket for what from sent.
func lostPacket(from, to netip.AddrPort) []byte {
	n := ipLen(from.Addr())
	q := make([]byte, n+8)
	encodeIP(q, from.Addr(), to.Addr(), header.UDPProtocolNumber)
	header.UDP(q[n:]).Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: 8})
	b := make([]byte, n+8, n+8+len(q))
	b[n], b[n+1] = 3, 3
	protocol := header.ICMPv4ProtocolNumber
	if from.Addr().Is6() {
		b[n], b[n+1], protocol = 1, 4, header.ICMPv6ProtocolNumber
	}
	encodeIP(b, to.Addr(), from.Addr(), protocol)
	return append(b, q...)
}

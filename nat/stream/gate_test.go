package stream

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

func from(addr string) net.Conn {
	near, _ := net.Pipe()
	return addressed{near, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 1))}
}

func TestGate(t *testing.T) {
	l := limits{handshakes: 3, perSource: 4, sourceRate: 1, sourceBurst: 6, rate: 4, burst: 8, sources: 3}
	start := time.Unix(1000, 0)
	type step struct {
		now   time.Duration
		addr  string
		leave bool // the oldest one of all leaves first
		want  string
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"connections of one source", []step{
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.1", false, "source"},
			{0, "192.0.2.2", false, "in"},
			{0, "192.0.2.1", true, "in"},
		}},
		{"rate of one source", []step{
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.1", true, "in"},
			{0, "192.0.2.1", true, "in"},
			{0, "192.0.2.1", true, "in"},
			{0, "192.0.2.1", true, "in"},
			{0, "192.0.2.1", true, "in"},
			{0, "192.0.2.1", true, "source"},
			{time.Second, "192.0.2.1", false, "in"},
			{time.Second, "192.0.2.1", true, "source"},
		}},
		{"a refused source takes nothing from others", []step{
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.1", false, "source"},
			{0, "192.0.2.1", false, "source"},
			{0, "192.0.2.1", false, "source"},
			{0, "192.0.2.1", false, "source"},
			{0, "192.0.2.2", false, "in"},
			{0, "192.0.2.2", false, "in"},
			{0, "192.0.2.2", false, "in"},
			{0, "192.0.2.2", false, "in"},
			{0, "192.0.2.3", false, "rate"},
			{time.Second, "192.0.2.3", false, "in"},
		}},
		{"an IPv6 network is one source", []step{
			{0, "2001:db8::1", false, "in"},
			{0, "2001:db8::2:1", false, "in"},
			{0, "2001:db8::3", false, "in"},
			{0, "2001:db8::4", false, "in"},
			{0, "2001:db8::5", false, "source"},
			{0, "2001:db8:0:1::5", false, "in"},
			{0, "::ffff:192.0.2.1", false, "in"},
		}},
		{"sources that are remembered", []step{
			{0, "192.0.2.1", false, "in"},
			{0, "192.0.2.2", false, "in"},
			{0, "192.0.2.3", false, "in"},
			{0, "192.0.2.4", false, "source"},
			{500 * time.Millisecond, "192.0.2.4", true, "source"},
			{time.Second, "192.0.2.4", false, "in"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(l)
			var inside []*ticket
			for i, s := range tt.steps {
				if s.leave {
					g.leave(inside[0])
					inside = inside[1:]
				}
				ticket, why, ok := g.enter(start.Add(s.now), from(s.addr))
				got := "in"
				if ok {
					inside = append(inside, ticket)
				} else {
					got = refusalNames[why]
				}
				if got != s.want {
					t.Errorf("step %d, %s: %s, want %s", i, s.addr, got, s.want)
				}
			}
			if len(g.pending) > l.handshakes {
				t.Errorf("%d handshakes", len(g.pending))
			}
			for _, ticket := range inside {
				g.leave(ticket)
			}
			if len(g.all) != 0 || len(g.pending) != 0 {
				t.Errorf("%d inside, %d pending", len(g.all), len(g.pending))
			}
		})
	}
}

// TestGateEvicts: the oldest handshake makes room, never a stream.
func TestGateEvicts(t *testing.T) {
	l := defaultLimits()
	l.handshakes = 2
	g := newGate(l)
	var list []*ticket
	for i := range 4 {
		ticket, _, ok := g.enter(time.Unix(1, 0), from(fmt.Sprintf("192.0.2.%d", i+1)))
		if !ok {
			t.Fatal("refused")
		}
		list = append(list, ticket)
		if i == 0 {
			g.settle(ticket) // a stream now
		}
	}
	for i, want := range []bool{false, true, false, false} {
		if got := g.settle(list[i]); got != want {
			t.Errorf("connection %d: evicted %v", i, got)
		}
		err := list[i].conn.SetDeadline(time.Time{})
		if (err != nil) != want {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// TestGateMemory: a flood from ever new addresses is remembered within bounds.
func TestGateMemory(t *testing.T) {
	g := newGate(defaultLimits())
	now, refused := time.Unix(1, 0), 0
	for i := range 20000 {
		now = now.Add(10 * time.Millisecond)
		addr := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String()
		ticket, why, ok := g.enter(now, from(addr))
		if !ok {
			refused++
			if why != refuseRate {
				t.Fatalf("refused: %s", refusalNames[why])
			}
			continue
		}
		g.leave(ticket)
	}
	if len(g.sources) > defaultLimits().sources || refused == 0 {
		t.Errorf("%d sources, %d refused", len(g.sources), refused)
	}
}

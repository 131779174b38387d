package natlab_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"corax/nat/natlab"
)

func TestSequentialPorts(t *testing.T) {
	in := newWorld(1).behind(natlab.SymmetricSequential(2))
	a, b, c := in.ask(0, echoPort), in.ask(1, echoPort), in.ask(1, echoAltPort)
	if b.Port()-a.Port() != 2 || c.Port()-b.Port() != 2 {
		t.Errorf("ports %d, %d, %d: want steps of 2", a.Port(), b.Port(), c.Port())
	}
	if again := in.ask(0, echoPort); again != a {
		t.Errorf("the same flow has another port: %v, then %v", a, again)
	}
}

// TestLifetime checks when a mapping ends: 30 s after the last packet of a
// flow that nobody answered, 120 s after one that was.
func TestLifetime(t *testing.T) {
	for _, tt := range []struct {
		name     string
		answered bool
		pause    time.Duration
		want     bool
	}{
		{"unreplied, in time", false, 29 * time.Second, true},
		{"unreplied, late", false, 31 * time.Second, false},
		{"replied, in time", true, 119 * time.Second, true},
		{"replied, late", true, 121 * time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := newWorld(1).behind(natlab.FullCone())
			mapped := netip.MustParseAddrPort("203.0.113.10:4500")
			if tt.answered {
				in.ask(0, echoPort)
			} else {
				_ = in.sock.Send(netip.MustParseAddrPort("198.51.100.77:9"), nil, 0, false)
			}
			in.w.lab.Run(tt.pause)
			if got := in.reaches(mapped, 1, echoPort); got != tt.want {
				t.Errorf("reached after %v: %v, want %v", tt.pause, got, tt.want)
			}
		})
	}
}

// TestLinuxClash is the finding that two ordinary Linux routers cannot be
// opened by plain probes: what came unasked takes the port away.
func TestLinuxClash(t *testing.T) {
	for _, tt := range []struct {
		name      string
		inputOpen bool
		ttl       int // of the unasked packet
		want      bool
	}{
		{"INPUT open", true, 64, false},
		{"INPUT dropped", false, 64, true},
		{"INPUT open, died on the way", true, 3, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := newWorld(1).behind(natlab.Masquerade(tt.inputOpen))
			server := netip.AddrPortFrom(echoAddrs[0], echoPort)
			_ = in.w.socks[server].Send(netip.MustParseAddrPort("203.0.113.10:4500"), nil, tt.ttl, false)
			in.w.lab.Run(time.Second)
			if got := in.ask(0, echoPort).Port() == 4500; got != tt.want {
				t.Errorf("port kept: %v, want %v", got, tt.want)
			}
			if in.ask(1, echoPort).Port() != 4500 {
				t.Errorf("a flow to somebody else lost its port, too")
			}
			in.w.lab.Run(time.Minute)
			if tt.inputOpen && in.ask(0, echoAltPort).Port() != 4500 {
				t.Errorf("another port of the server is held, too")
			}
		})
	}
}

func TestPortTaken(t *testing.T) {
	for _, nat := range []natlab.NAT{natlab.PortRestricted(), natlab.Masquerade(false)} {
		w := newWorld(1)
		in := w.behind(nat)
		second := w.lab.Host("second")
		second.Attach(in.lan, natlab.Link{}, prefixes("192.168.1.3/24")...)
		var seen netip.AddrPort
		sock := second.Listen(4500, func(_ time.Time, d natlab.Datagram) { seen = parseAddr(d.Data) })
		first := in.ask(0, echoPort)
		_ = sock.Send(netip.AddrPortFrom(echoAddrs[0], echoPort), nil, 0, false)
		w.lab.Run(time.Second)
		if first.Port() != 4500 || seen.Port() == 4500 || !seen.IsValid() {
			t.Errorf("%+v: ports %v and %v: want 4500 and another", nat, first, seen)
		}
	}
}

func TestHairpin(t *testing.T) {
	for _, on := range []bool{true, false} {
		nat := natlab.FullCone()
		nat.Hairpin = on
		w := newWorld(1)
		in := w.behind(nat)
		mapped := in.ask(0, echoPort)
		second := w.lab.Host("second")
		second.Attach(in.lan, natlab.Link{}, prefixes("192.168.1.3/24")...)
		sock := second.Listen(5000, func(time.Time, natlab.Datagram) {})
		in.got = nil
		_ = sock.Send(mapped, []byte("x"), 0, false)
		w.lab.Run(time.Second)
		if (len(in.got) == 1) != on {
			t.Fatalf("hairpin %v: %d datagrams", on, len(in.got))
		}
		if on && in.got[0].From != netip.MustParseAddrPort("203.0.113.10:5000") {
			t.Errorf("hairpinned source is %v, not the external one", in.got[0].From)
		}
	}
}

func TestRebootAndNewAddress(t *testing.T) {
	in := newWorld(1).behind(natlab.FullCone())
	mapped := in.ask(0, echoPort)
	in.router.Reboot()
	if in.reaches(mapped, 0, echoPort) {
		t.Errorf("mapping survived a reboot")
	}
	in.router.SetOuter(prefixes("203.0.113.99/32")...)
	if got := in.ask(0, echoPort); got != netip.MustParseAddrPort("203.0.113.99:4500") {
		t.Errorf("mapped to %v after the address changed", got)
	}
	if in.reaches(mapped, 0, echoPort) {
		t.Errorf("the old address still answers")
	}
	in.router.SetBlocked(true)
	if got := in.ask(0, echoPort); got.IsValid() {
		t.Errorf("UDP passed a router that blocks it")
	}
}

func TestDoubleNAT(t *testing.T) {
	w := newWorld(1)
	carrier := w.lab.Network(natlab.NetworkConfig{Name: "carrier"})
	lan := w.lab.Network(natlab.NetworkConfig{Name: "lan"})
	inner, outer := natlab.FullCone(), natlab.SymmetricRandom()
	w.lab.Router(natlab.RouterConfig{Name: "cgn", Inside: carrier, Outside: w.wan, NAT: &outer, Inner: prefixes("100.64.0.1/10"), Outer: prefixes("203.0.113.20/32")})
	w.lab.Router(natlab.RouterConfig{Name: "home", Inside: lan, Outside: carrier, NAT: &inner, Inner: prefixes("192.168.1.1/24"), Outer: prefixes("100.64.0.2/10")})
	in := &inside{w: w, host: w.lab.Host("inside")}
	in.host.Attach(lan, natlab.Link{}, prefixes("192.168.1.2/24")...)
	in.sock = in.host.Listen(4500, func(_ time.Time, d natlab.Datagram) { in.got = append(in.got, d) })
	a, b := in.ask(0, echoPort), in.ask(1, echoPort)
	if a.Addr() != netip.MustParseAddr("203.0.113.20") || a == b || !b.IsValid() {
		t.Errorf("mapped to %v and %v: want two ports of the outer NAT", a, b)
	}
}

// TestTTL sends with every TTL: with one NAT and five routers on the way,
// seven are needed, and a mapping is made from two on.
func TestTTL(t *testing.T) {
	for ttl := 1; ttl <= 8; ttl++ {
		w := newWorld(1)
		in := w.behind(natlab.FullCone())
		_ = in.sock.Send(netip.AddrPortFrom(echoAddrs[0], echoPort), nil, ttl, false)
		w.lab.Run(time.Second)
		if arrived := len(in.got) == 1; arrived != (ttl >= 7) {
			t.Errorf("TTL %d: arrived %v", ttl, arrived)
		}
		if opened := in.reaches(netip.MustParseAddrPort("203.0.113.10:4500"), 1, echoPort); opened != (ttl >= 2) {
			t.Errorf("TTL %d: mapping %v", ttl, opened)
		}
	}
}

func TestFirewallV6(t *testing.T) {
	w := newWorld(1)
	a, b := v6Site(w, 1, true), v6Site(w, 2, true)
	toA, toB := netip.MustParseAddrPort("[2001:db8:1::2]:4500"), netip.MustParseAddrPort("[2001:db8:2::2]:4500")
	_ = a.sock.Send(toB, []byte("refused, but opens the way back"), 0, false)
	w.lab.Run(time.Second)
	if len(b.got) != 0 {
		t.Fatalf("unasked packet passed the firewall")
	}
	_ = b.sock.Send(toA, []byte("passes"), 0, false)
	w.lab.Run(time.Second)
	if len(a.got) != 1 || a.got[0].From != toB {
		t.Fatalf("got %v, want one from %v", a.got, toB)
	}
	w.lab.Run(3 * time.Minute)
	_ = b.sock.Send(toA, []byte("too late"), 0, false)
	w.lab.Run(time.Second)
	if len(a.got) != 1 {
		t.Errorf("the firewall's state never lapses")
	}
}

func v6Site(w *world, n int, firewall bool) *inside {
	in := &inside{w: w}
	name := fmt.Sprintf("site%d", n)
	in.lan = w.lab.Network(natlab.NetworkConfig{Name: name})
	prefix := netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::/48", n))
	in.router = w.lab.Router(natlab.RouterConfig{
		Name: name + "-router", Inside: in.lan, Outside: w.wan,
		Routed: []netip.Prefix{prefix}, Firewall: firewall,
	})
	in.host = w.lab.Host(name + "-host")
	in.host.Attach(in.lan, natlab.Link{}, netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::2/64", n)))
	in.sock = in.host.Listen(4500, func(_ time.Time, d natlab.Datagram) { in.got = append(in.got, d) })
	return in
}

func TestMTU(t *testing.T) {
	w := newWorld(1)
	in := w.behind(natlab.FullCone())
	server := netip.AddrPortFrom(echoAddrs[0], echoPort)
	var heard []int
	in.sock.OnTooBig(func(_ time.Time, to netip.AddrPort, mtu int) {
		if to == server {
			heard = append(heard, mtu)
		}
	})
	w.wan.SetLink(natlab.Link{MTU: 1280})
	send := func(payload int, df bool) (arrived bool, err error) {
		in.got = nil
		err = in.sock.Send(server, make([]byte, payload), 0, df)
		w.lab.Run(time.Second)
		return len(in.got) == 1, err
	}
	for _, tt := range []struct {
		name    string
		payload int
		df      bool
		silent  bool
		arrives bool
		icmp    int
		refused bool
	}{
		{"fits exactly", 1280 - 28, true, false, true, 0, false},
		{"one too many", 1280 - 27, true, false, false, 1280, false},
		{"fragmented", 1280 - 27, false, false, true, 0, false},
		{"black hole", 1280 - 27, true, true, false, 0, false},
		{"own link", 1501 - 28, true, false, false, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			heard = nil
			w.wan.SetLink(natlab.Link{MTU: 1280, Silent: tt.silent})
			arrived, err := send(tt.payload, tt.df)
			if arrived != tt.arrives {
				t.Errorf("arrived: %v, want %v", arrived, tt.arrives)
			}
			if tt.icmp != 0 != slices.Equal(heard, []int{tt.icmp}) {
				t.Errorf("ICMP said %v, want %d", heard, tt.icmp)
			}
			if _, tooBig := errors.AsType[*natlab.TooBigError](err); tooBig != tt.refused {
				t.Errorf("send: %v", err)
			}
		})
	}
}

func TestLinkFigures(t *testing.T) {
	lab := natlab.New(3)
	n := lab.Network(natlab.NetworkConfig{Name: "net", Link: natlab.Link{Latency: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.1}})
	a, b := lab.Host("a"), lab.Host("b")
	ia := a.Attach(n, natlab.Link{}, prefixes("10.0.0.1/24")...)
	ib := b.Attach(n, natlab.Link{Latency: 10 * time.Millisecond}, prefixes("10.0.0.2/24")...)
	to := netip.MustParseAddrPort("10.0.0.2:9")
	var delays []time.Duration
	var order []byte
	sent := make(map[byte]time.Time)
	b.Listen(9, func(now time.Time, d natlab.Datagram) {
		delays = append(delays, now.Sub(sent[d.Data[0]]))
		order = append(order, d.Data[0])
	})
	s := a.Listen(9, nil)
	burst := func(step time.Duration) {
		delays, order = nil, nil
		for i := range 200 {
			sent[byte(i)] = lab.Now()
			_ = s.Send(to, []byte{byte(i)}, 0, false)
			lab.Run(step)
		}
		lab.Run(time.Second)
	}
	burst(12 * time.Millisecond)
	if len(delays) < 160 || len(delays) > 195 {
		t.Errorf("%d of 200 arrived at 10 %% loss", len(delays))
	}
	if lo, hi := slices.Min(delays), slices.Max(delays); lo < 25*time.Millisecond || hi > 35*time.Millisecond || hi-lo < 4*time.Millisecond {
		t.Errorf("delays %v to %v: want 25 to 35 ms", lo, hi)
	}
	if !slices.IsSorted(order) {
		t.Errorf("packets overtook each other without Reorder")
	}
	n.SetPair(ia, ib, natlab.Link{Latency: time.Millisecond, Reorder: 0.2})
	burst(100 * time.Microsecond)
	if len(delays) != 200 || slices.IsSorted(order) {
		t.Errorf("with Reorder: %d of 200 arrived, in order %v", len(delays), slices.IsSorted(order))
	}
}

func TestStream(t *testing.T) {
	nat := natlab.SymmetricRandom()
	w := newWorld(5)
	in := w.behind(nat)
	in.router.SetBlocked(true)
	w.wan.SetLink(natlab.Link{Latency: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.05})
	var far *natlab.Stream
	var got []string
	ended := 0
	w.servers[0].ListenStream(443, func(s *natlab.Stream) {
		far = s
		s.OnReceive(func(_ time.Time, data []byte) { got = append(got, string(data)) })
		s.OnClose(func(time.Time) { ended++ })
	})
	var near *natlab.Stream
	in.host.Dial(netip.AddrPortFrom(echoAddrs[0], 443), func(s *natlab.Stream) {
		near = s
		s.OnReceive(func(_ time.Time, data []byte) { got = append(got, "back "+string(data)) })
		s.OnClose(func(time.Time) { ended++ })
	})
	w.lab.Run(time.Second)
	if near == nil || far == nil {
		t.Fatal("not opened")
	}
	var want []string
	for i := range 100 {
		near.Send(fmt.Append(nil, i))
		want = append(want, fmt.Sprint(i))
	}
	w.lab.Run(time.Minute)
	if !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
	far.Send([]byte("x"))
	w.lab.Run(time.Second)
	if got[len(got)-1] != "back x" {
		t.Fatalf("nothing came back")
	}
	in.router.Reboot()
	near.Send([]byte("lost"))
	w.lab.Run(20 * time.Second)
	if ended != 2 || got[len(got)-1] != "back x" {
		t.Errorf("%d ends closed after the router rebooted, last message %q", ended, got[len(got)-1])
	}
	near = far
	in.host.Dial(netip.AddrPortFrom(echoAddrs[0], 444), func(s *natlab.Stream) { near = s })
	w.lab.Run(2 * time.Second)
	if near != nil {
		t.Errorf("opened a stream to nobody")
	}
}

// TestDeterministic runs a noisy scenario twice: the same seed gives the same
// packets, another one others.
func TestDeterministic(t *testing.T) {
	run := func(seed uint64) string {
		w := newWorld(seed)
		var out strings.Builder
		w.lab.Trace(func(line string) { out.WriteString(line + "\n") })
		w.wan.SetLink(natlab.Link{Latency: 10 * time.Millisecond, Jitter: 9 * time.Millisecond, Loss: 0.2, Reorder: 0.2})
		in := w.behind(natlab.SymmetricRandom())
		for i := range 200 {
			w.lab.After(time.Duration(i)*time.Millisecond, func() {
				_ = in.sock.Send(netip.AddrPortFrom(echoAddrs[i%2], echoPort), nil, 0, false)
			})
		}
		w.lab.Run(time.Second)
		if w.lab.Drops()["lost"] == 0 {
			t.Errorf("nothing was lost")
		}
		return out.String()
	}
	first := run(1)
	if again := run(1); again != first {
		t.Errorf("one seed gave two runs")
	}
	if run(2) == first {
		t.Errorf("two seeds gave one run")
	}
}

func TestTimers(t *testing.T) {
	lab := natlab.New(1)
	var got []int
	lab.After(2*time.Second, func() { got = append(got, 3) })
	lab.After(time.Second, func() { got = append(got, 1); lab.After(0, func() { got = append(got, 2) }) })
	stopped := lab.After(time.Second, func() { got = append(got, 99) })
	stopped.Stop()
	start := lab.Now()
	lab.Run(5 * time.Second)
	if !slices.Equal(got, []int{1, 2, 3}) || lab.Now().Sub(start) != 5*time.Second {
		t.Errorf("ran %v until %v", got, lab.Now().Sub(start))
	}
}

// TestManyFlows checks that a table that was swept still knows what lives.
func TestManyFlows(t *testing.T) {
	in := newWorld(1).behind(natlab.PortRestricted())
	first := in.ask(0, echoPort)
	for i := range 9000 {
		_ = in.sock.Send(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.77"), uint16(1024+i)), nil, 0, false)
		if i%100 == 0 {
			in.w.lab.Run(time.Second)
		}
	}
	if got := in.ask(1, echoPort); got != first {
		t.Errorf("mapping changed from %v to %v", first, got)
	}
	if !in.reaches(first, 0, echoPort) {
		t.Errorf("a flow was swept before its time")
	}
}

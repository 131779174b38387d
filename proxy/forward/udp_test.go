package forward

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"corax/dataplane"
)

func udpEcho(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		lacking(t, addr, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return c.(*net.UDPConn)
}

func (w *world) dialUDP(to netip.AddrPort) net.Conn {
	w.t.Helper()
	from := client4
	if to.Addr().Is6() {
		from = client6
	}
	c, err := w.far.DialUDP(w.t.Context(), from, to)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestUDP(t *testing.T) {
	noLeaks(t)
	for _, tt := range []struct {
		name, listen string
		pod          netip.Addr
		size         int
	}{
		{"IPv4", "127.0.0.1:0", pod4, 20},
		{"IPv6", "[::1]:0", pod6, 20},
		{"fragments over IPv4", "127.0.0.1:0", pod4, 9000},
		{"fragments over IPv6", "[::1]:0", pod6, 9000},
		{"empty", "127.0.0.1:0", pod4, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := udpEcho(t, tt.listen)
			w := newWorld(t, Config{})
			c := w.dialUDP(netip.AddrPortFrom(tt.pod, portOf(server.LocalAddr())))
			sent := make([]byte, tt.size)
			for i := range sent {
				sent[i] = byte(i * 7)
			}
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 65535)
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := c.Read(b)
			if err != nil || string(b[:n]) != string(sent) {
				t.Errorf("%d bytes, %v", n, err)
			}
			if s := w.f.Status(); s.Flows != 1 {
				t.Errorf("%d flows", s.Flows)
			}
		})
	}
}

// TestUDPUnreachable checks both ways: nobody has the port here, and there.
func TestUDPUnreachable(t *testing.T) {
	noLeaks(t)
	t.Run("here", func(t *testing.T) {
		for _, tt := range []struct {
			listen string
			pod    netip.Addr
			code   int
		}{{"127.0.0.1:0", pod4, 3}, {"[::1]:0", pod6, 4}} {
			server := udpEcho(t, tt.listen)
			_ = server.Close()
			w := newWorld(t, Config{})
			c := w.dialUDP(netip.AddrPortFrom(tt.pod, portOf(server.LocalAddr())))
			_, _ = c.Write([]byte("x"))
			if got := w.code(); got != tt.code {
				t.Errorf("code %d, want %d", got, tt.code)
			}
			await(t, "end of the flow", func() bool { return w.f.Status().Flows == 0 })
		}
	})
	t.Run("there", func(t *testing.T) {
		server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		w := newWorld(t, Config{})
		c := w.dialUDP(netip.AddrPortFrom(pod4, portOf(server.LocalAddr())))
		_, _ = c.Write([]byte("x"))
		_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, from, err := server.ReadFrom(make([]byte, 1))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close() // now nobody is there
		if _, err := server.WriteTo([]byte("y"), from); err != nil {
			t.Fatal(err)
		}
		await(t, "end of the flow", func() bool { return w.f.Status().Flows == 0 })
		// The socket is gone, so the server is told, as over any network.
		peer, err := net.DialUDP("udp", nil, from.(*net.UDPAddr))
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		_, _ = peer.Write([]byte("z"))
		_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, want refused", err)
		}
	})
}

func TestUDPLimits(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, Config{Limits: Limits{Flows: 8}})
	server := udpEcho(t, "127.0.0.1:0")
	to := netip.AddrPortFrom(pod4, portOf(server.LocalAddr()))
	for range 20 {
		_, _ = w.dialUDP(to).Write([]byte("x"))
	}
	await(t, "drops", func() bool { return w.counter("forward_drop_total{full_source}") == 16 })
	if s := w.f.Status(); s.Flows != 4 {
		t.Errorf("%d flows, want 4", s.Flows)
	}
}

func TestIdle(t *testing.T) {
	for _, tt := range []struct {
		port   uint16
		twoWay bool
		want   time.Duration
	}{{53, false, 10 * time.Second}, {53, true, 10 * time.Second}, {9, false, time.Minute}, {9, true, 3 * time.Minute}} {
		if got := idleOf(tt.port)(tt.twoWay); got != tt.want {
			t.Errorf("port %d, two-way %t: %v", tt.port, tt.twoWay, got)
		}
	}
}

// TestPing pings an exposed address through the kernel, or is told that this
// process may not.
func TestPing(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, Config{})
	replies := make(chan []byte, 1)
	w.pass = func(p []byte) bool {
		if p[0]>>4 == 4 && p[9] == 1 && p[20] == 0 {
			replies <- append([]byte{}, p...)
		}
		return true
	}
	w.site.Send([]dataplane.Packet{{Data: echo(client4, pod4, 77, 3, []byte("payload"))}})
	if len(w.f.Problems()) > 0 {
		if code := w.code(); code != 13 {
			t.Errorf("code %d, want 13", code)
		}
		if w.counter("forward_drop_total{no_ping}") != 1 {
			t.Error("not counted")
		}
		t.Log("without ICMP sockets: ", w.f.Problems()[0])
		return
	}
	select {
	case p := <-replies:
		want := echo(pod4, client4, 77, 3, []byte("payload"))
		if string(p[24:]) != string(want[24:]) || string(p[12:20]) != string(want[12:20]) || sum(p[20:]) != 0 {
			t.Errorf("reply %x", p)
		}
	case <-time.After(10 * time.Second):
		t.Error("no reply")
	}
}

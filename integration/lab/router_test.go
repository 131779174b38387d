//go:build linux

package lab

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// udpSource sends one datagram from a socket and returns the address that the
// receiver saw.
func udpSource(t *testing.T, from interface {
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
}, to interface {
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	SetReadDeadline(time.Time) error
}, at netip.AddrPort,
) netip.AddrPort {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte("hello"), at); err != nil {
		t.Fatal(err)
	}
	if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, src, err := to.ReadFromUDPAddrPort(make([]byte, 100))
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
}

func TestNAT(t *testing.T) {
	l := ForTest(t)
	topo := Standard(l, Options{Edges: 1, Nodes: 2})
	edge, router := topo.Domains[1].Nodes[0], topo.Domains[1].Router
	clouds := topo.Domains[0].Nodes
	for _, tt := range []struct {
		name string
		nat  NAT
		keep bool // the inner port
	}{
		{"keep port", NAT{Mapping: MapKeepPort}, true},
		{"random", NAT{Mapping: MapRandom}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			router.SetNAT(tt.nat)
			if err := router.Reboot(); err != nil {
				t.Fatal(err)
			}
			in, err := edge.ListenUDP(netip.AddrPortFrom(edge.IP, 4500))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = in.Close() }()
			var seen []netip.AddrPort
			for _, cloud := range clouds {
				out, err := cloud.ListenUDP(netip.AddrPortFrom(cloud.IP, 4500))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = out.Close() }()
				src := udpSource(t, in, out, netip.AddrPortFrom(cloud.IP, 4500))
				if want := netip.MustParseAddr("203.0.113.10"); src.Addr() != want {
					t.Errorf("mapped to %s, want the router's address %s", src, want)
				}
				if (src.Port() == 4500) != tt.keep {
					t.Errorf("mapped to %s", src)
				}
				seen = append(seen, src)
				// The answer comes back through the mapping.
				udpSource(t, out, in, src)
			}
			if (seen[0] == seen[1]) != tt.keep {
				t.Errorf("mapped to %v for two destinations", seen)
			}
		})
	}
}

func TestNATFiltersNewFlows(t *testing.T) {
	l := ForTest(t)
	topo := Standard(l, Options{Edges: 1, Nodes: 1})
	edge, cloud := topo.Domains[1].Gateway(), topo.Domains[0].Gateway()
	ctx := ctxFor(t, 10*time.Second)
	// A route to the LAN behind the NAT does not help: the NAT drops.
	cloud.Route(Route{Dst: netip.MustParsePrefix("192.168.1.0/24"), Via: netip.MustParseAddr("203.0.113.129")})
	topo.Internet.Route(Route{Dst: netip.MustParsePrefix("192.168.1.0/24"), Via: netip.MustParseAddr("203.0.113.10")})
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := cloud.Ping(short, edge.IP, PingOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping into the NAT: %v", err)
	}
	for _, to := range []netip.Addr{cloud.IP, cloud.addr(false)} {
		if _, err := edge.Ping(ctx, to, PingOptions{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := cloud.Serve(7000); err != nil {
		t.Fatal(err)
	}
	if _, err := edge.Transfer(ctx, netip.AddrPortFrom(cloud.IP, 7000), 1<<20); err != nil {
		t.Error(err)
	}
}

func TestBlockUDP(t *testing.T) {
	l := ForTest(t)
	topo := Standard(l, Options{Edges: 1, Nodes: 1, NAT: NAT{Mapping: MapKeepPort, BlockUDP: true}})
	edge, cloud := topo.Domains[1].Gateway(), topo.Domains[0].Gateway()
	ctx := ctxFor(t, 10*time.Second)
	if _, err := cloud.Serve(7000); err != nil {
		t.Fatal(err)
	}
	if err := cloud.ServeDNS(cloud.IP, map[string][]netip.Addr{"a.example": {cloud.IP}}); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 1200*time.Millisecond)
	defer cancel()
	if _, err := edge.EchoUDP(short, netip.AddrPortFrom(cloud.IP, 7000), 100); err == nil {
		t.Error("UDP passed")
	}
	if _, err := edge.EchoTCP(ctx, netip.AddrPortFrom(cloud.IP, 7000), 100); err != nil {
		t.Error(err)
	}
	if _, err := edge.Lookup(ctx, cloud.IP, "ip4", "a.example"); err != nil {
		t.Error(err)
	}
}

func TestDropICMP(t *testing.T) {
	for _, dropped := range []bool{false, true} {
		l := ForTest(t)
		topo := Standard(l, Options{Edges: 1, Nodes: 1, WANMTU: 1280, DropICMP: dropped})
		edge, cloud := topo.Domains[1].Gateway(), topo.Domains[0].Gateway()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if dropped {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
		}
		_, err := edge.Ping(ctx, cloud.IP, PingOptions{Size: 1400, DF: true})
		cancel()
		if e, ok := errors.AsType[*ICMPError](err); ok == dropped || ok && e.MTU != 1280 {
			t.Errorf("with ICMP dropped %t: %v", dropped, err)
		}
		if _, err := cloud.Serve(7000); err != nil {
			t.Fatal(err)
		}
		// UDP passes in fragments, and small IPv6 packets need ND.
		for _, to := range []netip.Addr{cloud.IP, cloud.addr(false)} {
			if _, err := edge.EchoUDP(ctxFor(t, 5*time.Second), netip.AddrPortFrom(to, 7000), 1000); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestStandard checks the shape of the topology: who reaches whom without agents.
func TestStandard(t *testing.T) {
	for _, tt := range []struct {
		name string
		opt  Options
	}{
		{"default", Options{}},
		{"IPv6 underlay", Options{V6Underlay: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := ForTest(t)
			topo := Standard(l, tt.opt)
			ctx := ctxFor(t, 20*time.Second)
			hub := topo.Domains[0].Gateway()
			if hub.IP.Is6() != tt.opt.V6Underlay {
				t.Errorf("node IP %s", hub.IP)
			}
			a, b := topo.Domains[1], topo.Domains[2]
			if a.Nodes[0].IP != b.Nodes[0].IP || a.Nodes[1].IP != b.Nodes[1].IP {
				t.Error("the edges have different node IPs")
			}
			for _, d := range topo.Domains {
				if _, err := d.Nodes[1].Ping(ctx, hub.IP, PingOptions{}); err != nil && d != topo.Domains[0] {
					t.Error(err)
				}
				for _, to := range []netip.Addr{d.Nodes[1].Pods[0].IP, d.Nodes[1].Pods[0].IP6} {
					if _, err := d.Nodes[0].Pods[0].Ping(ctx, to, PingOptions{}); err != nil {
						t.Error(err)
					}
				}
			}
			// A pod of another domain: the packet leaves in the clear and
			// nobody takes it, which the captures see.
			far := b.Nodes[0].Pods[0].IP
			leak, err := a.Router.Capture("wan", func(f Frame) bool { return f.Dst == far })
			if err != nil {
				t.Fatal(err)
			}
			short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			_, err = a.Nodes[0].Pods[0].Ping(short, far, PingOptions{})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ping to another domain without agents: %v", err)
			}
			if leak.Count() != 1 || leak.Lost() != 0 {
				t.Errorf("%d packets counted, %d lost; want 1, 0", leak.Count(), leak.Lost())
			}
		})
	}
}

func TestTUN(t *testing.T) {
	l := ForTest(t)
	h := l.Host("h")
	err := h.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		ifr, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return err
		}
		_, err = h.Netlink().LinkByName("tun0")
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

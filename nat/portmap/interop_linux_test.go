package portmap

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

const interopPort = 4500

// startMapper runs a Mapper on the lab's LAN host. The channel gets something
// when the mapping changed; stop ends it.
func startMapper(t *testing.T, r *router, gateways ...netip.Addr) (m *Mapper, changed chan struct{}, stop func()) {
	t.Helper()
	changed = make(chan struct{}, 1)
	m, err := New(Config{
		Gateways: func() []netip.Addr { return gateways },
		Port:     interopPort,
		Changed: func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
		Open: func(f func() error) error { return inNS(r.lan, f) },
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return m, changed, stop
}

// await waits until ok, looked at whenever something changed.
func await(t *testing.T, m *Mapper, changed chan struct{}, what string, ok func() bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s: not within 30 s; IPv4: %v; IPv6: %v; counters %v", what, m.Status().IPv4, m.Status().IPv6, m.Counters())
		}
	}
}

// waitDaemon waits until miniupnpd answers, by asking it.
func waitDaemon(t *testing.T, m *Mapper, up func(Report) bool) Report {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); ; {
		rep := m.Probe(t.Context())
		if up(rep) {
			return rep
		}
		if time.Now().After(limit) {
			t.Fatalf("miniupnpd does not answer: %v; %+v", rep, rep)
		}
	}
}

func TestMiniupnpd(t *testing.T) {
	tests := []struct {
		name    string
		options []string
		noPCP   bool
		want    Protocol
		up      func(Report) bool
	}{
		{"PCP", []string{"enable_natpmp=yes", "enable_upnp=yes"}, false, PCP, func(r Report) bool { return r.PCP && r.NATPMP && r.UPnP }},
		{"NAT-PMP", []string{"enable_natpmp=yes", "enable_upnp=no"}, true, NATPMP, func(r Report) bool { return !r.PCP && r.NATPMP && !r.UPnP }},
		{"UPnP", []string{"enable_natpmp=no", "enable_upnp=yes"}, false, UPnP, func(r Report) bool { return !r.PCP && !r.NATPMP && r.UPnP }},
		{"UPnP version 1", []string{"enable_natpmp=no", "enable_upnp=yes", "force_igd_desc_v1=yes"}, false, UPnP, func(r Report) bool { return r.UPnP }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(t)
			if tt.noPCP {
				must(t, inNS(r.router, dropPCP))
			}
			r.startDaemon(tt.options...)
			m, changed, stop := startMapper(t, r, netip.MustParseAddr(lanRouter))
			rep := waitDaemon(t, m, tt.up)
			t.Log(rep)

			peer := r.udp(r.wan, wanHost+":7000")
			us := r.udp(r.lan, fmt.Sprintf("%s:%d", lanHost, interopPort))
			external := netip.AddrPortFrom(netip.MustParseAddr(wanRouter), interopPort)
			if arrives(t, peer, external, us) {
				t.Fatal("a packet arrives before anything is mapped")
			}
			m.Want(true)
			await(t, m, changed, "mapping", func() bool { _, _, ok := m.Mapping(); return ok })
			got, proto, _ := m.Mapping()
			if proto != tt.want || got != external {
				t.Fatalf("mapped %v by %v, want %v by %v", got, proto, external, tt.want)
			}
			if !arrives(t, peer, got, us) {
				t.Fatal("no packet arrives through the mapping")
			}
			stop()
			if _, _, ok := m.Mapping(); ok {
				t.Error("a mapping is offered after Run ended")
			}
			// Another socket: conntrack still knows the flow of the first.
			if arrives(t, r.udp(r.wan, wanHost+":7001"), got, us) {
				t.Error("a packet arrives after the mapping was deleted")
			}
		})
	}
}

// TestMiniupnpdRestart kills the daemon and takes its rules away: the restarted
// one announces itself, and the mapping is made again long before it is due.
func TestMiniupnpdRestart(t *testing.T) {
	r := newRouter(t)
	r.startDaemon("enable_natpmp=yes", "enable_upnp=no")
	m, changed, _ := startMapper(t, r, netip.MustParseAddr(lanRouter))
	waitDaemon(t, m, func(r Report) bool { return r.PCP })
	m.Want(true)
	await(t, m, changed, "mapping", func() bool { _, _, ok := m.Mapping(); return ok })
	ext, _, _ := m.Mapping()
	peer := r.udp(r.wan, wanHost+":7000")
	us := r.udp(r.lan, fmt.Sprintf("%s:%d", lanHost, interopPort))

	// A client tells by the epoch that the router forgot, and allows two seconds of
	// error (RFC 6887 section 8.5): one that was up for less looks as before.
	<-time.After(5 * time.Second)
	r.stopDaemon()
	must(t, inNS(r.router, firewall))
	if arrives(t, peer, ext, us) {
		t.Fatal("a packet arrives although the router forgot")
	}
	r.startDaemon("enable_natpmp=yes", "enable_upnp=no")
	port := 7001
	for limit := time.Now().Add(30 * time.Second); !arrives(t, r.udp(r.wan, fmt.Sprintf("%s:%d", wanHost, port)), ext, us); port++ {
		if time.Now().After(limit) {
			t.Fatalf("not mapped again: %v; counters %v", m.Status().IPv4, m.Counters())
		}
	}
}

// TestMiniupnpdPinhole opens the router's IPv6 firewall by PCP.
func TestMiniupnpdPinhole(t *testing.T) {
	r := newRouter(t)
	r.startDaemon("enable_natpmp=yes", "enable_upnp=no")
	m, changed, stop := startMapper(t, r, r.gateway6)
	rep := waitDaemon(t, m, func(r Report) bool { return r.PCP6 })
	t.Log(rep)
	peer := r.udp(r.wan, "["+wanHost6+"]:7000")
	us := r.udp(r.lan, fmt.Sprintf("[%s]:%d", lanHost6, interopPort))
	want := netip.AddrPortFrom(netip.MustParseAddr(lanHost6), interopPort)
	if arrives(t, peer, want, us) {
		t.Fatal("a packet arrives before anything is opened")
	}
	m.Want(true)
	await(t, m, changed, "pinhole", func() bool { _, ok := m.Pinhole(); return ok })
	if got, _ := m.Pinhole(); got != want {
		t.Fatalf("pinhole %v, want %v", got, want)
	}
	if !arrives(t, peer, want, us) {
		t.Fatal("no packet arrives through the pinhole")
	}
	stop()
}

package nat

import (
	"net/netip"
	"testing"
	"time"

	"corax/control/hello"
	"corax/nat/path"
	"corax/nat/stun"
)

// TestFiltering has hubs without a second address show how a NAT filters.
func TestFiltering(t *testing.T) {
	for _, c := range []struct {
		name   string
		filter stun.Filtering
		hubs   int
		want   stun.Filtering
	}{
		{"all come in", stun.FilteringEndpointIndependent, 2, stun.FilteringEndpointIndependent},
		{"by address", stun.FilteringAddressDependent, 2, stun.FilteringAddressDependent},
		{"by address and port", stun.FilteringAddressAndPortDependent, 2, stun.FilteringAddressAndPortDependent},
		// One hub cannot tell these two apart: the stricter is assumed.
		{"all come in, one hub", stun.FilteringEndpointIndependent, 1, stun.FilteringAddressDependent},
		{"by address, one hub", stun.FilteringAddressDependent, 1, stun.FilteringAddressDependent},
		{"by address and port, one hub", stun.FilteringAddressAndPortDependent, 1, stun.FilteringAddressAndPortDependent},
	} {
		t.Run(c.name, func(t *testing.T) {
			build := func(w *internet) {
				for _, name := range []string{"hub", "hub2"}[:c.hubs] {
					w.hub(name)
				}
				w.edge("a").nat.filter = c.filter
			}
			lab(t, build, func(t *testing.T, w *internet) {
				a := w.node("a")
				found := func() (f uint8) {
					a.in(func(g *Agent) { f = g.local.NAT.Filtering })
					return f
				}
				w.within(20*time.Second, "the filtering is known", func() bool { return found() != path.FilteringUnknown })
				if got := stun.Filtering(found()); got != c.want {
					t.Errorf("%v, want %v", got, c.want)
				}
				a.in(func(g *Agent) {
					if g.discovery.report.Filtering != c.want || g.filter != nil {
						t.Errorf("the report says %v", g.discovery.report.Filtering)
					}
				})
				w.run(10 * time.Second)
				for _, n := range w.nodes {
					n.dev.mu.Lock()
					if len(n.dev.extra) > 0 {
						t.Errorf("%s: sockets %v stay open", n.name, n.dev.extra)
					}
					n.dev.mu.Unlock()
				}
				// It is found again with the next discovery, as on a change of the network.
				a.nat.filter = stun.FilteringAddressAndPortDependent
				a.agent.NetworkChanged("test")
				w.within(20*time.Second, "the change is noticed", func() bool { return found() == path.FilteringAddressAndPortDependent })
			})
		})
	}
}

// TestFilteringOfLastRun: a test of the discovery before does not count as one of
// this, whose outcome somebody waits for.
func TestFilteringOfLastRun(t *testing.T) {
	lab(t, func(w *internet) { w.hub("hub"); w.edge("a") }, func(t *testing.T, w *internet) {
		a := w.node("a")
		w.run(20 * time.Second)
		a.in(func(g *Agent) {
			g.filter = &filterTest{run: new(stun.Discovery)}
			if g.testFiltering(time.Now()) || g.filter != nil {
				t.Error("the test of another discovery is still under way")
			}
		})
	})
}

// TestHelp: a hub sends only to where the session of whoever asks comes from, and
// not as often as it is asked to.
func TestHelp(t *testing.T) {
	lab(t, func(w *internet) { w.hub("hub"); w.edge("a") }, func(t *testing.T, w *internet) {
		hub, a := w.node("hub"), w.node("a")
		w.run(30 * time.Second)
		sentTo := func(to netip.AddrPort) (n int) {
			hub.dev.mu.Lock()
			defer hub.dev.mu.Unlock()
			for _, r := range hub.dev.sent {
				if m, err := stun.Parse(r.Data); err == nil && m.Kind == stun.KindAnswer && r.Path.To == to {
					n++
				}
			}
			return n
		}
		ask := func(tx byte, to netip.AddrPort) {
			hub.in(func(g *Agent) { g.help(g.peers[a.key], hello.Test{Tx: [12]byte{tx}, Addr: to}) })
		}
		own := netip.AddrPortFrom(a.nat.public, 7777)
		stranger := netip.MustParseAddrPort("192.0.2.66:53")
		before := hub.drops()
		ask(1, stranger)
		w.run(3 * time.Second)
		if n := sentTo(stranger); n != 0 {
			t.Errorf("%d packets to somebody who did not ask", n)
		}
		if hub.drops()["wrong_origin"] != before["wrong_origin"]+1 {
			t.Error("that is not counted")
		}
		ask(2, own)
		ask(2, own) // said again
		ask(3, own) // too soon
		w.run(3 * time.Second)
		if n := sentTo(own); n != 2*len(helpAfter) {
			t.Errorf("%d packets, want %d", n, 2*len(helpAfter))
		}
	})
}

package nat

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/control/hello"
	"corax/dataplane/key"
)

// TestCheapestRelay has two hubs of which one is configured to cost more.
func TestCheapestRelay(t *testing.T) {
	for _, dear := range []string{"hub", "hub2"} {
		t.Run(dear+" is dear", func(t *testing.T) {
			lab(t, func(w *internet) {
				w.hub("hub")
				w.hub("hub2")
				w.node(dear).cost = 100 * time.Millisecond
				w.symmetric("a")
				w.symmetric("b")
			}, func(t *testing.T, w *internet) {
				a, b := w.node("a"), w.node("b")
				want := map[string]string{"hub": "relay hub2", "hub2": "relay hub"}[dear]
				w.run(5 * time.Second)
				defer a.talk(b)()
				w.within(30*time.Second, want, func() bool { return a.via(b) == want && b.via(a) == want })
				begin := time.Now().Add(1)
				w.run(2 * time.Minute)
				if ws := append(a.words(b, begin), b.words(a, begin)...); len(ws) != 0 {
					t.Errorf("then: %v", ws)
				}
				a.in(func(g *Agent) {
					if first := g.hubs[0]; first.Node == dear {
						t.Errorf("%s is the first hub", first.Node)
					}
				})
			})
		})
	}
}

// TestFloodedCosts looks at what hubs tell one another of their edges.
func TestFloodedCosts(t *testing.T) {
	lab(t, func(w *internet) {
		w.hub("hub")
		w.hub("hub2")
		w.symmetric("a")
		w.symmetric("b")
	}, func(t *testing.T, w *internet) {
		hub, hub2, a, b := w.node("hub"), w.node("hub2"), w.node("a"), w.node("b")
		w.run(20 * time.Second)
		links := func() (list []hello.Link) {
			hub.in(func(g *Agent) {
				if c := g.peers[hub2.key].costs; c != nil {
					list = slices.Clone(c.Links)
				}
			})
			return list
		}
		names := func() (out []key.Public) {
			for _, l := range links() {
				if l.Micros < 15000 || l.Micros > 30000 || l.Hub != (l.To == hub.key) {
					t.Errorf("link %+v", l)
				}
				out = append(out, l.To)
			}
			return out
		}
		if n := names(); slices.Contains(n, a.key) || slices.Contains(n, b.key) {
			t.Errorf("links to edges that nobody wants: %v", n)
		}
		defer a.talk(b)()
		w.run(20 * time.Second)
		if n := names(); !slices.Contains(n, a.key) || !slices.Contains(n, b.key) {
			t.Errorf("links %v", links())
		}
	})
}

// TestHubWantsAnEdge has a hub send to an edge that is not there yet, so that it
// has a machine when the edge comes: that goes, since the edge chooses the path.
func TestHubWantsAnEdge(t *testing.T) {
	lab(t, func(w *internet) {
		w.hub("hub")
		w.hub("hub2")
		w.edge("a")
	}, func(t *testing.T, w *internet) {
		hub, a := w.node("hub"), w.node("a")
		a.kill()
		w.run(2 * time.Minute)
		hub.ping(a)
		w.run(time.Second)
		if s := hub.status(a); !s.Managed {
			t.Fatalf("no machine: %+v", s)
		}
		a.start(a.plan())
		w.run(10 * time.Second)
		if hub.via(a) != "direct" {
			t.Errorf("path %s", hub.via(a))
		}
		begin := time.Now()
		for range 400 { // longer than labels live
			w.run(time.Second)
			if p, _ := hub.dev.last(a.key); !p.To.IsValid() {
				t.Fatalf("after %v the path is %s", time.Since(begin), hub.via(a))
			}
			if !a.knows(hub) || a.status(hub).Path.Proven == false {
				t.Fatalf("after %v the edge has no session", time.Since(begin))
			}
			if a.agent.hello.Of(hub.key).Candidates == nil {
				t.Fatalf("after %v the hub is silent", time.Since(begin))
			}
		}
		if s := hub.status(a); s.Managed {
			t.Errorf("still a machine: %+v", s)
		}
	})
}

// TestTwoWaysOfAnEdge has a hub reach an edge by IPv6 while the edge reaches it by
// IPv4. Each end chose for itself, and the edge is in session all the same.
func TestTwoWaysOfAnEdge(t *testing.T) {
	lab(t, func(w *internet) {
		hub := w.hub("hub")
		hub.dual()
		a := w.edge("a")
		a.dual()
		w.symmetric("b")
		hub.shape = func(p *Plan) { p.peer(a).Proven = netip.AddrPortFrom(a.addr6, 4500) }
	}, func(t *testing.T, w *internet) {
		hub, a, b := w.node("hub"), w.node("a"), w.node("b")
		a.kill()
		w.run(2 * time.Minute)
		defer hub.talk(a)()
		w.run(time.Second)
		a.start(a.plan())
		w.run(70 * time.Second)
		to, _ := hub.dev.last(a.key)
		from, _ := a.dev.last(hub.key)
		if !to.To.Addr().Is6() || !from.To.Addr().Is4() {
			t.Fatalf("the ways are %v and %v", to, from)
		}
		defer a.talk(b)()
		w.within(5*time.Second, "packets of both", func() bool { return a.dev.got(b.key) > 0 && b.dev.got(a.key) > 0 })
	})
}

// TestHubAndAnEdgeOfOthers has a hub talk to an edge that keeps a session with
// another hub only: to both it is a peer like others.
func TestHubAndAnEdgeOfOthers(t *testing.T) {
	lab(t, func(w *internet) {
		hub := w.hub("hub")
		w.hub("hub2")
		w.edge("a").shape = func(p *Plan) { p.peer(hub).Keep = false }
	}, func(t *testing.T, w *internet) {
		hub, a := w.node("hub"), w.node("a")
		w.run(5 * time.Second)
		if hub.via(a) != "none" || a.via(hub) != "none" {
			t.Fatalf("at first: %s and %s", hub.via(a), a.via(hub))
		}
		stop := hub.talk(a)
		w.within(time.Second, "a path", func() bool { return hub.dev.got(a.key) > 0 && a.dev.got(hub.key) > 0 })
		w.within(2*time.Second, "a direct path", func() bool { return hub.via(a) == "direct" && a.via(hub) == "direct" })
		w.run(5 * time.Second)
		stop()
		w.run(61*time.Second + settleFor + 5*time.Second)
		// The hub has a machine, or has followed the edge.
		if s := hub.status(a); s.Path.Active || s.Managed && hub.via(a) != "relay hub2" || a.via(hub) != "relay hub2" {
			t.Errorf("at rest: %s and %s, %+v", hub.via(a), a.via(hub), s.Path)
		}
		begin := time.Now()
		w.run(labelsFor)
		if d := cmp.Diff([]string{"none"}, a.words(hub, begin)); d != "" {
			t.Errorf("later (-want +got)\n%s", d)
		}
		begin = time.Now()
		w.run(10 * time.Minute)
		if ws := append(a.words(hub, begin), hub.words(a, begin)...); len(ws) != 0 {
			t.Errorf("paths of peers that nobody talks to: %v", ws)
		}
		n := a.dev.got(hub.key)
		hub.ping(a)
		hub.ping(a)
		w.within(2*time.Second, "a path again", func() bool { hub.ping(a); return a.dev.got(hub.key) > n })
	})
}

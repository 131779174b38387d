package nat

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"corax/dataplane/key"
	"corax/nat/path"
	"corax/nat/stun"
)

// without returns p without a peer.
func without(p Plan, x *node) Plan {
	p.Peers = slices.DeleteFunc(slices.Clone(p.Peers), func(o Peer) bool { return o.Key == x.key })
	return p
}

// sameDomain returns p with a peer in the node's own domain, at endpoint.
func sameDomain(p Plan, x *node, endpoint netip.AddrPort) Plan {
	o := p.peer(x)
	o.SameDomain, o.Keep, o.Hello, o.Endpoint = true, false, false, endpoint
	return p
}

// TestGone has a plan take away a peer that is talked to: nothing is left of it,
// and nothing that it still says brings it back.
func TestGone(t *testing.T) {
	near := netip.MustParseAddrPort("10.9.9.9:4500")
	for _, tt := range []struct {
		name string
		who  string // is gone
		plan func(p Plan, x *node) Plan
		path Path // then; not pinned
	}{
		{"edge dropped", "b", without, Path{}},
		{"edge in our domain", "b", func(p Plan, x *node) Plan { return sameDomain(p, x, near) }, Path{To: near}},
		{"edge in our domain, without an address", "b", func(p Plan, x *node) Plan { return sameDomain(p, x, netip.AddrPort{}) }, Path{}},
		{"hub dropped", "hub2", without, Path{}},
		{"hub in our domain", "hub2", func(p Plan, x *node) Plan { return sameDomain(p, x, near) }, Path{To: near}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, func(w *internet) {
				w.hub("hub")
				w.hub("hub2")
				w.symmetric("a")
				w.symmetric("b")
			}, func(t *testing.T, w *internet) {
				a, b, hub, x := w.node("a"), w.node("b"), w.node("hub"), w.node(tt.who)
				w.run(5 * time.Second)
				defer a.talk(b)()
				w.run(5 * time.Second)
				if s := a.status(x); !s.Managed || s.Path.Way.Kind == path.None || len(a.labels()) != 2 {
					t.Fatalf("at first: %+v, labels %v", s.Path, a.labels())
				}
				var before *path.Machine
				a.in(func(g *Agent) { before = g.peers[hub.key].machine })
				a.setPlan(tt.plan(a.plan(), x))
				for range 2 {
					w.run(2 * time.Second)
					a.lacks(x)
				}
				if p, pin := a.dev.last(x.key); p != tt.path || pin {
					t.Errorf("path %+v, pinned %v; want %+v", p, pin, tt.path)
				}
				a.in(func(g *Agent) {
					if g.peers[hub.key].machine != before {
						t.Error("the machine of another peer is a new one")
					}
				})
				a.setPlan(a.plan())
				w.within(2*time.Second, "it comes back", func() bool {
					s := a.status(x)
					return s.Managed && s.Told && s.Path.Way.Kind != path.None
				})
			})
		})
	}
}

// lacks fails when n's agent has anything left of x.
func (n *node) lacks(x *node) {
	t := n.w.t
	t.Helper()
	n.in(func(a *Agent) {
		if p := a.peers[x.key]; p != nil && (!p.SameDomain || p.machine != nil || p.probeID != stun.ProbeID{} || p.asking || p.conn != nil) {
			t.Errorf("the peer is still %+v", p)
		}
		for _, p := range a.byProbeID {
			if p.Key == x.key {
				t.Error("its probe id is still known")
			}
		}
		if slices.ContainsFunc(a.hubs, func(h *peer) bool { return h.Key == x.key }) {
			t.Error("it is still a hub of ours")
		}
		if r := a.book.Relays(x.key); len(r) > 0 {
			t.Errorf("relays %v", r)
		}
		for _, p := range a.peers {
			for _, r := range a.book.Relays(p.Key) {
				if r.Hub == x.key {
					t.Errorf("%s is still relayed by it", p.Node)
				}
			}
		}
		if wants, labels := a.book.Tell(x.key); len(wants)+len(labels) > 0 {
			t.Errorf("it is told %v and %v", wants, labels)
		}
		if h := a.hello.Of(x.key); h.Candidates != nil {
			t.Error("what it said is still there")
		}
	})
	if _, ok := n.agent.MTUs()[x.key]; ok {
		t.Error("its MTU is still shown")
	}
	for label, f := range n.labels() {
		if f.From == x.key || f.To == x.key {
			t.Errorf("label %d: %+v", label, f)
		}
	}
}

// TestHubForgetsAnEdge has a hub's plan lose one of two edges that it relays for.
func TestHubForgetsAnEdge(t *testing.T) {
	lab(t, func(w *internet) {
		w.hub("hub")
		w.symmetric("a")
		w.symmetric("b")
	}, func(t *testing.T, w *internet) {
		hub, a, b := w.node("hub"), w.node("a"), w.node("b")
		w.run(5 * time.Second)
		defer a.talk(b)()
		w.run(5 * time.Second)
		if len(hub.labels()) != 2 || len(hub.dev.sent) == 0 {
			t.Fatalf("labels at first: %v", hub.labels())
		}
		hub.setPlan(without(hub.plan(), b))
		w.run(time.Second)
		hub.lacks(b)
		if len(hub.labels()) != 0 {
			t.Errorf("labels %v", hub.labels())
		}
		w.run(time.Second)
		n := b.dev.got(a.key)
		w.run(10 * time.Second)
		if m := b.dev.got(a.key); m != n {
			t.Errorf("%d packets were relayed", m-n)
		}
	})
}

func TestOnlyTheLastPlanCounts(t *testing.T) {
	b := newInbox()
	plans := make([]Plan, 100)
	for i := range plans {
		plans[i].MaxMTU = i
		b.setPlan(&plans[i])
	}
	select {
	case <-b.bell:
	default:
		t.Fatal("nobody is told")
	}
	if n := b.take(); n.plan != &plans[99] {
		t.Errorf("took the plan %+v", n.plan)
	}
	select {
	case <-b.bell:
		t.Error("told twice")
	default:
	}
	if n := b.take(); n.plan != nil {
		t.Error("the plan is still there")
	}
}

// TestEqualPlans has equal plans come in bursts while two edges talk.
func TestEqualPlans(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		a, b := w.node("a"), w.node("b")
		w.run(5 * time.Second)
		defer a.talk(b)()
		w.run(5 * time.Second)
		type state struct {
			machines map[key.Public]*path.Machine
			started  time.Time
			labels   uint64
		}
		look := func() (s state) {
			s.machines = make(map[key.Public]*path.Machine)
			a.in(func(g *Agent) {
				for k, p := range g.peers {
					s.machines[k] = p.machine
				}
				s.started, s.labels = g.discovery.started, g.book.Version()
			})
			return s
		}
		before, begin := look(), time.Now()
		for range 50 {
			a.setPlan(a.plan())
		}
		w.run(time.Second)
		after := look()
		for k, m := range before.machines {
			if m == nil || after.machines[k] != m {
				t.Errorf("machine of %v: %p, before %p", k, after.machines[k], m)
			}
		}
		if after.started != before.started || after.labels != before.labels {
			t.Errorf("asked again at %v, labels changed %d times", after.started, after.labels-before.labels)
		}
		if p := slices.Concat(a.dev.paths(b.key, begin), a.dev.paths(w.node("hub").key, begin)); len(p) != 0 {
			t.Errorf("paths were set: %v", p)
		}
	})
}

// TestMovedHub has the plan name another address of a hub.
func TestMovedHub(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		hub, a := w.node("hub"), w.node("a")
		w.run(5 * time.Second)
		w.mu.Lock()
		delete(w.at, hub.addr)
		hub.addr = netip.MustParseAddr("198.51.100.99")
		w.at[hub.addr] = hub
		w.mu.Unlock()
		hub.agent.NetworkChanged("another address")
		a.setPlan(a.plan())
		w.within(2*time.Second, "its new address", func() bool {
			p, _ := a.dev.last(hub.key)
			return p.To.Addr() == hub.addr
		})
		w.within(2*time.Second, "a proof", func() bool { return isDirect(a.status(hub)) })
	})
}

// TestWhoRelays has two hubs of which one does not relay, by what the plan of the
// edges says, or by its own.
func TestWhoRelays(t *testing.T) {
	build := func(edges, own bool) func(w *internet) {
		return func(w *internet) {
			w.hub("hub")
			quiet := w.hub("quiet")
			quiet.relay = own
			for _, name := range []string{"a", "b"} {
				w.symmetric(name).shape = func(p *Plan) { p.peer(quiet).Relay = edges }
			}
		}
	}
	for _, tt := range []struct {
		name       string
		edges, own bool // what they think of the second hub
	}{
		{"the edges do not ask it", false, true},
		{"it does not serve those who ask", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, build(tt.edges, tt.own), func(t *testing.T, w *internet) {
				hub, quiet, a, b := w.node("hub"), w.node("quiet"), w.node("a"), w.node("b")
				w.run(5 * time.Second)
				defer a.talk(b)()
				w.run(5 * time.Second)
				if a.via(b) != "relay hub" || len(quiet.labels()) != 0 {
					t.Errorf("path is %s, labels of the other hub %v", a.via(b), quiet.labels())
				}
				hub.kill()
				w.run(10 * time.Second)
				n := b.dev.got(a.key)
				w.run(5 * time.Second)
				if m := b.dev.got(a.key); m != n || len(quiet.labels()) != 0 {
					t.Errorf("%d packets came, labels %v", m-n, quiet.labels())
				}
				if refused := quiet.counter("nat_relay_drop_total", "not_relaying"); (refused > 0) != tt.edges {
					t.Errorf("%d wants were refused", refused)
				}
			})
		})
	}
}

// TestTwoRelays has edges that keep sessions with different hubs.
func TestTwoRelays(t *testing.T) {
	lab(t, func(w *internet) {
		hub, hub2 := w.hub("hub"), w.hub("hub2")
		w.symmetric("a").shape = func(p *Plan) { p.peer(hub2).Keep = false }
		w.symmetric("b").shape = func(p *Plan) { p.peer(hub).Keep = false }
	}, func(t *testing.T, w *internet) {
		a, b := w.node("a"), w.node("b")
		w.run(30 * time.Second)
		defer a.talk(b)()
		w.within(time.Second, "a relay", func() bool { return a.via(b) == "relay hub" && b.via(a) == "relay hub2" })
		w.run(5 * time.Second)
		if s := a.status(b); !s.Path.Proven || s.RTT != 6*latency {
			t.Errorf("%+v", s)
		}
		n, m := a.dev.got(b.key), b.dev.got(a.key)
		w.run(time.Second)
		if n, m = a.dev.got(b.key)-n, b.dev.got(a.key)-m; n < 18 || m < 18 {
			t.Errorf("%d and %d of 20 packets came", n, m)
		}
	})
}

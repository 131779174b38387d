package nat

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"corax/dataplane/key"
	"corax/nat/relay"
)

func TestNewChecks(t *testing.T) {
	good := Config{
		Private: privateOf("a").secret, Conn: helloConn{}, Port: 4500,
		Prefixes: func() []netip.Prefix { return nil }, Gateways: func() []netip.Addr { return nil },
	}
	if _, err := New(good); err != nil {
		t.Errorf("%v", err)
	}
	for name, change := range map[string]func(c *Config){
		"key":      func(c *Config) { c.Private = key.Private{} },
		"conn":     func(c *Config) { c.Conn = nil },
		"port":     func(c *Config) { c.Port = 0 },
		"prefixes": func(c *Config) { c.Prefixes = nil },
		"gateways": func(c *Config) { c.Gateways = nil },
	} {
		c := good
		change(&c)
		if a, err := New(c); err == nil || a != nil {
			t.Errorf("no %s: %v", name, err)
		}
	}
}

// TestRunEnds cancels agents at several moments: Run returns, and what it
// started is gone, or the bubble says so.
func TestRunEnds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after time.Duration
		talk  bool
	}{
		{"at once", 0, false},
		{"while it asks STUN servers", latency, false},
		{"at rest", time.Minute, false},
		{"while peers talk", 10 * time.Second, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, oneHub, func(t *testing.T, w *internet) {
				a := w.node("a")
				if tt.talk {
					defer a.talk(w.node("b"))()
				}
				w.run(tt.after)
				begin := time.Now()
				a.kill()
				if d := time.Since(begin); d > time.Second {
					t.Errorf("it took %v", d)
				}
				// Nobody may stumble over an agent that has ended.
				a.agent.Wanted(w.node("b").key)
				a.agent.Proven(w.node("b").key, Path{To: stranger})
				a.agent.NetworkChanged("test")
				a.agent.SetPlan(a.plan())
				a.agent.Receive(Datagram{From: stranger, Data: probeFor(t, a, w.node("hub"), nil)})
				if s := a.agent.Status(t.Context()); s != nil {
					t.Errorf("status %v", s)
				}
				if _, ok := a.agent.PeerStatusOf(t.Context(), w.node("b").key); ok {
					t.Error("there is a status of a peer")
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := a.agent.Netcheck(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("netcheck: %v", err)
				}
			})
		})
	}
}

// TestLostHelloPort has the hello port end by itself: Run says so.
func TestLostHelloPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet(t).add(&node{name: "a"})
		a := newAgent(t, n)
		done := make(chan error, 1)
		go func() { done <- a.Run(t.Context(), n.dev) }()
		time.Sleep(time.Second)
		_ = helloConn{device: n.dev}.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestStatusOfPeers(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		hub, a, b := w.node("hub"), w.node("a"), w.node("b")
		w.run(5 * time.Second)
		all := a.agent.Status(t.Context())
		if len(all) != 2 || !all[hub.key].Managed || all[b.key].Managed || all[b.key].Key != b.key {
			t.Errorf("%+v", all)
		}
		s, ok := a.agent.PeerStatusOf(t.Context(), hub.key)
		if !ok || s.Key != hub.key || !isDirect(s) || s.FirstTLS {
			t.Errorf("%+v, %v", s, ok)
		}
		if _, ok := a.agent.PeerStatusOf(t.Context(), key.Public{7}); ok {
			t.Error("there is a status of nobody")
		}
		if p := a.agent.Problems(); len(p) != 0 {
			t.Errorf("problems %v", p)
		}
		seen := make(map[string]bool)
		for _, c := range a.agent.Counters() {
			name := c.Name + " " + c.Reason
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
		for _, want := range []string{"nat_drop_total malformed", "nat_relay_drop_total not_allowed", "hello_sent_total ", "nat_stun_server_answer_total success"} {
			if !seen[want] {
				t.Errorf("no counter %q", want)
			}
		}
	})
}

// TestHubIsMade has a plan make a hub of an edge, and an edge of a hub: it answers
// STUN servers' questions and relays only while it is one.
func TestHubIsMade(t *testing.T) {
	lab(t, func(w *internet) {
		w.hub("hub")
		w.hub("other")
		w.symmetric("a")
		w.symmetric("b")
	}, func(t *testing.T, w *internet) {
		hub, a, b := w.node("hub"), w.node("a"), w.node("b")
		w.node("other").kill()
		w.run(5 * time.Second)
		defer a.talk(b)()
		w.within(time.Second, "a relay", a.reaches(b, "relay hub"))
		plan := hub.plan()
		plan.Self.Hub = false
		hub.setPlan(plan)
		w.run(time.Second)
		if l := hub.labels(); len(l) != 0 {
			t.Errorf("labels %v", l)
		}
		refused := hub.counter("nat_drop_total", "not_hub")
		a.agent.NetworkChanged("ask again")
		w.run(time.Second)
		if n := hub.counter("nat_drop_total", "not_hub"); n == refused {
			t.Error("it answers as a server")
		}
		hub.setPlan(hub.plan())
		w.within(30*time.Second, "a relay again", func() bool {
			return a.via(b) == "relay hub" && len(hub.labels()) == 2
		})
		w.run(time.Second)
		n := b.dev.got(a.key)
		w.run(time.Second)
		if n = b.dev.got(a.key) - n; n < 18 {
			t.Errorf("%d of 20 packets came", n)
		}
	})
}

// labelsOf names whose traffic n relays.
func labelsOf(n *node) map[[2]key.Public]bool {
	out := make(map[[2]key.Public]bool)
	for _, f := range n.labels() {
		if f.Out != 0 {
			out[[2]key.Public{f.From, f.To}] = true
		}
	}
	return out
}

// TestForwards looks at the labels of a hub and of the ends.
func TestForwards(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		hub, a, b := w.node("hub"), w.node("a"), w.node("b")
		w.run(5 * time.Second)
		defer a.talk(b)()
		w.run(time.Second)
		if l := labelsOf(hub); len(l) != 2 || !l[[2]key.Public{a.key, b.key}] || !l[[2]key.Public{b.key, a.key}] {
			t.Errorf("labels of the hub: %v", hub.labels())
		}
		for _, x := range [2][2]*node{{a, b}, {b, a}} {
			want := relay.Forward{From: hub.key, To: x[1].key}
			for label, f := range x[0].labels() {
				if f != want || len(x[0].labels()) != 1 {
					t.Errorf("%s: label %d is %+v", x[0].name, label, f)
				}
			}
		}
	})
}

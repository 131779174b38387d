package nat

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/nat/path"
)

func oneHub(w *internet) {
	w.hub("hub")
	w.edge("a")
	w.edge("b")
}

// TestKeptHub looks at the session of an edge with its hub from both ends.
func TestKeptHub(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		hub, a := w.node("hub"), w.node("a")
		w.run(5 * time.Second)
		s := a.status(hub)
		if !s.Managed || !isDirect(s) || !s.Path.Active || !s.Told || s.RTT != 2*latency {
			t.Errorf("at the edge: %+v", s)
		}
		if p, pin := a.dev.last(hub.key); !pin || p.To.Addr() != hub.addr {
			t.Errorf("the edge reaches the hub at %v, pinned %v", p, pin)
		}
		s = hub.status(a)
		if s.Managed || !s.Told {
			t.Errorf("at the hub: %+v", s)
		}
		if p, pin := hub.dev.last(a.key); pin || p.To.Addr() != a.nat.public {
			t.Errorf("the hub reaches the edge at %v, pinned %v", p, pin)
		}
		if n := len(hub.dev.paths(a.key, time.Time{})); n != 0 {
			t.Errorf("the hub set the path of its edge %d times", n)
		}
		w.run(10 * time.Minute)
		if s := a.status(hub); !isDirect(s) || !s.Path.Active || len(s.Path.Transitions) != 1 {
			t.Errorf("after ten minutes: %+v", s)
		}
	})
}

// TestWanted follows a pair of edges from the first packet to the relay, to the
// direct path, and back to rest; twice.
func TestWanted(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		hub, a, b := w.node("hub"), w.node("a"), w.node("b")
		w.run(5 * time.Second)
		if s := a.status(b); s.Managed || a.via(b) != "none" {
			t.Fatalf("before any traffic: %+v", s)
		}
		for range 2 {
			begin := time.Now()
			stop := a.talk(b)
			w.within(100*time.Millisecond, "a relay", a.reaches(b, "relay hub"))
			w.within(100*time.Millisecond, "a relay at the other end", b.reaches(a, "relay hub"))
			w.within(time.Second, "a direct path", func() bool { return a.via(b) == "direct" && b.via(a) == "direct" })
			w.run(3 * time.Second)
			for _, s := range []PeerStatus{a.status(b), b.status(a)} {
				if !isDirect(s) || s.RTT != 2*latency || !s.Path.Active || s.FirstTLS {
					t.Errorf("while they talk: %+v", s)
				}
			}
			if n, m := a.dev.got(b.key), b.dev.got(a.key); n < 60 || m < 60 {
				t.Errorf("%d and %d packets came", n, m)
			}
			if s := hub.status(a); s.RTT != 2*latency {
				t.Errorf("the hub measured %v to an edge that it relays for", s.RTT)
			}
			stop()

			w.run(59 * time.Second)
			if s := a.status(b); !s.Path.Active || a.via(b) != "direct" {
				t.Errorf("not idle for long: %+v", s.Path)
			}
			w.run(2 * time.Second)
			for _, x := range [2][2]*node{{a, b}, {b, a}} {
				if s := x[0].status(x[1]); s.Path.Active || !s.Managed || s.Path.Way.Kind != path.Direct || x[0].via(x[1]) != "relay hub" {
					t.Errorf("idle for a minute: %s %+v", x[0].via(x[1]), s.Path)
				}
			}
			w.run(198 * time.Second)
			if a.via(b) != "relay hub" || len(hub.labels()) != 2 {
				t.Errorf("the label went too early: %s, %v", a.via(b), hub.labels())
			}
			w.run(5 * time.Second)
			if a.via(b) != "none" || b.via(a) != "none" {
				t.Errorf("after the label: %s, %s", a.via(b), b.via(a))
			}
			w.run(65 * time.Second)
			if l := hub.labels(); len(l) != 0 {
				t.Errorf("the hub still has labels: %v", l)
			}
			if d := cmp.Diff([]string{"relay hub", "direct", "relay hub", "none"}, a.words(b, begin)); d != "" {
				t.Errorf("paths (-want +got)\n%s", d)
			}
			begin = time.Now()
			w.run(10 * time.Minute)
			if ws := a.words(b, begin); len(ws) != 0 {
				t.Errorf("paths of a peer that nobody talks to: %v", ws)
			}
		}
	})
}

// TestRestWithSeveralHubs has each hub repeat its label for a peer that nobody
// talks to: that is no news.
func TestRestWithSeveralHubs(t *testing.T) {
	lab(t, func(w *internet) {
		w.hub("hub")
		w.hub("hub2")
		w.hub("hub3")
		w.edge("a")
		w.edge("b")
	}, func(t *testing.T, w *internet) {
		a, b := w.node("a"), w.node("b")
		w.run(5 * time.Second)
		stop := a.talk(b)
		w.run(5 * time.Second)
		stop()
		w.run(62 * time.Second)
		for range 25 {
			if a.status(b).Path.Active || b.status(a).Path.Active {
				t.Fatal("somebody is awake")
			}
			w.run(5 * time.Second)
		}
		if l := a.labels(); len(l) != 3 {
			t.Errorf("labels %v", l)
		}
	})
}

// TestWhileAsleep has a packet come to a peer whose machine sleeps: it wakes up,
// and both talk directly at once, since the way is known.
func TestWhileAsleep(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		a, b := w.node("a"), w.node("b")
		w.run(5 * time.Second)
		stop := a.talk(b)
		w.run(5 * time.Second)
		stop()
		w.run(2 * time.Minute)
		if a.via(b) != "relay hub" || b.via(a) != "relay hub" {
			t.Fatalf("not parked: %s, %s", a.via(b), b.via(a))
		}
		had := b.dev.got(a.key)
		a.ping(b)
		w.within(3*latency, "the packet", func() bool { return b.dev.got(a.key) > had })
		w.within(2*time.Second, "the direct path", a.reaches(b, "direct"))
		w.within(2*time.Second, "the direct path of the other end", b.reaches(a, "direct"))
	})
}

// TestLosses has something break while two edges talk.
func TestLosses(t *testing.T) {
	twoHubs := func(edge func(w *internet, name string)) func(w *internet) {
		return func(w *internet) {
			w.hub("hub")
			w.hub("hub2").cost = 20 * time.Millisecond
			edge(w, "a")
			edge(w, "b")
		}
	}
	open := func(w *internet, name string) { w.edge(name) }
	random := func(w *internet, name string) { w.symmetric(name) }
	for _, tt := range []struct {
		name   string
		build  func(w *internet)
		before string
		cause  func(w *internet)
		after  string
		within time.Duration
	}{
		{
			"the hub that relays", twoHubs(random), "relay hub",
			func(w *internet) { w.node("hub").kill() },
			"relay hub2", time.Second,
		},
		{
			"the direct path", twoHubs(open), "direct",
			func(w *internet) { w.cut(w.node("a"), w.node("b"), true) },
			"relay hub", time.Second,
		},
		{
			"the direct path and the first hub", twoHubs(open), "direct",
			func(w *internet) {
				w.cut(w.node("a"), w.node("b"), true)
				w.node("hub").kill()
			},
			"relay hub2", 2 * time.Second,
		},
		{
			"a hub that is not used", twoHubs(open), "direct",
			func(w *internet) { w.node("hub").kill() },
			"direct", 0,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, tt.build, func(t *testing.T, w *internet) {
				a, b := w.node("a"), w.node("b")
				w.run(5 * time.Second)
				defer a.talk(b)()
				// The first label may be that of the other hub.
				w.within(time.Minute, tt.before, func() bool { return a.via(b) == tt.before && b.via(a) == tt.before })
				w.run(10 * time.Second)
				tt.cause(w)
				w.run(tt.within)
				if a.via(b) != tt.after || b.via(a) != tt.after {
					t.Errorf("after %v: %s and %s, transitions %v", tt.within, a.via(b), b.via(a), a.status(b).Path.Transitions)
				}
				n, m := a.dev.got(b.key), b.dev.got(a.key)
				w.run(10 * time.Second)
				if n, m = a.dev.got(b.key)-n, b.dev.got(a.key)-m; n < 180 || m < 180 {
					t.Errorf("%d and %d of 200 packets came then", n, m)
				}
				if a.via(b) != tt.after || b.via(a) != tt.after {
					t.Errorf("it did not stay: %s and %s", a.via(b), b.via(a))
				}
			})
		})
	}
}

// TestDirectAgain has a direct path come back.
func TestDirectAgain(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		a, b := w.node("a"), w.node("b")
		w.run(5 * time.Second)
		defer a.talk(b)()
		w.run(5 * time.Second)
		w.cut(a, b, true)
		w.run(5 * time.Second)
		if a.via(b) != "relay hub" {
			t.Fatalf("path is %s", a.via(b))
		}
		w.cut(a, b, false)
		w.within(2*time.Minute, "the direct path", func() bool { return a.via(b) == "direct" && b.via(a) == "direct" })
	})
}

// TestRestart starts nodes anew, with another probe key: the others notice.
func TestRestart(t *testing.T) {
	for _, tt := range []struct {
		name, who string
		gone      time.Duration // between the end and the start
		within    time.Duration
	}{
		{"edge at once", "b", 0, 3 * time.Second},
		{"edge after a while", "b", 20 * time.Second, 3 * time.Second},
		{"hub at once", "hub", 0, 3 * time.Second},
		{"hub after a while", "hub", 2 * time.Minute, 35 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, oneHub, func(t *testing.T, w *internet) {
				hub, a, b := w.node("hub"), w.node("a"), w.node("b")
				who := w.node(tt.who)
				w.run(5 * time.Second)
				defer a.talk(b)()
				w.run(5 * time.Second)
				old := who.agent.probeID
				who.kill()
				w.run(tt.gone)
				who.start(who.plan())
				w.run(tt.within)
				if who.agent.probeID == old {
					t.Fatal("the same probe id")
				}
				for _, x := range [][2]*node{{a, hub}, {b, hub}, {a, b}, {b, a}} {
					if s := x[0].status(x[1]); !isDirect(s) {
						t.Errorf("%s reaches %s: %+v", x[0].name, x[1].name, s.Path.Transitions)
					}
				}
				other := a
				if who == hub {
					for _, x := range []*node{a, b} {
						if !x.knows(hub) || !hub.knows(x) {
							t.Errorf("%s and the hub do not know each other", x.name)
						}
					}
				} else if !other.knows(who) || !who.knows(other) {
					t.Error("they do not know each other")
				}
				n := a.dev.got(b.key)
				w.run(time.Second)
				if n = a.dev.got(b.key) - n; n < 19 {
					t.Errorf("%d of 20 packets came", n)
				}
			})
		})
	}
}

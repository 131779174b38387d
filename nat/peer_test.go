package nat

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane/key"
	"corax/nat/path"
	"corax/nat/stream"
)

// bench is an agent that does not run, with a tunnel and some peers, in a bubble.
func bench(t *testing.T, test func(a *Agent, dev *device)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newInternet(t)
		n := w.add(&node{name: "a"})
		a := newAgent(t, n)
		var tunnel Tunnel = n.dev
		a.tunnel.Store(&tunnel)
		test(a, n.dev)
	})
}

// addPeer adds a peer with an idle machine, and n's tunnel knows it.
func addPeer(a *Agent, dev *device, p Peer) *peer {
	x := &peer{Peer: p, machine: path.New(path.Config{Self: a.self, Peer: p.Key})}
	a.peers[p.Key] = x
	dev.peers[p.Key] = new(link)
	return x
}

var (
	directWay = path.Way{Kind: path.Direct, To: stranger}
	relayWay  = path.Way{Kind: path.Relay, Hub: key.Public{9}, Label: 77}
	relayPath = Path{Via: key.Public{9}, Label: 77}
)

func TestPark(t *testing.T) {
	offered := []path.RelayWay{{Way: relayWay}}
	for _, tt := range []struct {
		name   string
		keep   bool
		way    path.Way
		relays []path.RelayWay
		parked bool
	}{
		{"direct", false, directWay, offered, true},
		{"direct, no relay", false, directWay, nil, false},
		{"relayed", false, relayWay, offered, false},
		{"no path", false, path.Way{}, offered, false},
		{"a hub", true, directWay, offered, false},
		{"a stream that is gone", false, directWay, []path.RelayWay{{Way: path.Way{Kind: path.Stream, Stream: 4}}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bench(t, func(a *Agent, dev *device) {
				p := addPeer(a, dev, Peer{Key: key.Public{1}, Keep: tt.keep})
				p.way, p.relays = tt.way, tt.relays
				a.park(p)
				var want []Path
				if tt.parked {
					want = []Path{relayPath}
				}
				if got := dev.paths(p.Key, time.Time{}); p.parked != tt.parked || !slices.Equal(got, want) {
					t.Errorf("parked %v, paths %v", p.parked, got)
				}
				if _, pin := dev.last(p.Key); pin != tt.parked {
					t.Errorf("pinned: %v", pin)
				}
			})
		})
	}
}

func TestRetire(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(a *Agent, p *peer)
		asleep time.Duration
		asked  bool // still
		taken  bool // the path
	}{
		{"just asleep", nil, labelsFor - time.Second, true, false},
		{"asleep for long", nil, labelsFor, false, true},
		{"nobody is asked", func(_ *Agent, p *peer) { p.asking = false }, labelsFor, false, false},
		{"awake", func(_ *Agent, p *peer) { p.deadline = time.Now() }, labelsFor, true, false},
		{"never slept", func(_ *Agent, p *peer) { p.asleep = time.Time{} }, labelsFor, true, false},
		{"a hub", func(_ *Agent, p *peer) { p.Keep = true }, labelsFor, true, false},
		{"no machine", func(_ *Agent, p *peer) { p.machine = nil }, labelsFor, true, false},
		{"a mesh without hub", func(a *Agent, _ *peer) { a.hubs = nil }, labelsFor, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bench(t, func(a *Agent, dev *device) {
				h := addPeer(a, dev, Peer{Key: key.Public{9}, Hub: true, Relay: true, Keep: true})
				a.hubs = []*peer{h}
				p := addPeer(a, dev, Peer{Key: key.Public{1}})
				a.ask(p)
				time.Sleep(time.Hour)
				p.asleep = time.Now().Add(-tt.asleep)
				if tt.change != nil {
					tt.change(a, p)
				}
				a.retire(p, time.Now())
				if p.asking != tt.asked {
					t.Errorf("asking: %v", p.asking)
				}
				if wants, _ := a.book.Tell(h.Key); (len(wants) == 1) != tt.asked && tt.name != "nobody is asked" {
					t.Errorf("the hub is told %v", wants)
				}
				var want []Path
				if tt.taken {
					want = []Path{{}}
				}
				if d := cmp.Diff(len(want), len(dev.paths(p.Key, time.Time{}))); d != "" || p.parked != tt.taken {
					t.Errorf("paths %v, parked %v", dev.paths(p.Key, time.Time{}), p.parked)
				}
			})
		})
	}
}

func TestUnpark(t *testing.T) {
	for _, tt := range []struct {
		name  string
		way   path.Way
		woken time.Duration // ago
		used  bool
	}{
		{"not proven, just woken", directWay, unparkAfter - 1, false},
		{"not proven, for long", directWay, unparkAfter, true},
		{"no way at all", path.Way{}, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bench(t, func(a *Agent, dev *device) {
				p := addPeer(a, dev, Peer{Key: key.Public{1}})
				p.way, p.parked, p.woken = tt.way, true, time.Now().Add(-tt.woken)
				a.unpark(p)
				if n := len(dev.paths(p.Key, time.Time{})); p.parked == tt.used || (n == 1) != tt.used {
					t.Errorf("parked %v, path set %d times", p.parked, n)
				}
			})
		})
	}
}

// TestSockets opens and gives up the sockets of two peers' searches.
func TestSockets(t *testing.T) {
	bench(t, func(a *Agent, dev *device) {
		p, q := addPeer(a, dev, Peer{Key: key.Public{1}}), addPeer(a, dev, Peer{Key: key.Public{2}})
		machine := q.machine
		p.machine, q.machine = nil, nil // they give up what they did not ask for
		want := func(open, ofP, ofQ []uint32) {
			t.Helper()
			a.finish()
			if !slices.Equal(dev.extra, open) || !slices.Equal(p.sockets, ofP) || !slices.Equal(q.sockets, ofQ) {
				t.Errorf("open %v; %v and %v; want %v; %v and %v", dev.extra, p.sockets, q.sockets, open, ofP, ofQ)
			}
		}
		a.do(p, path.OpenSockets{N: 3})
		a.do(q, path.OpenSockets{N: 2})
		want([]uint32{1, 2, 3, 4, 5}, []uint32{1, 2, 3}, []uint32{4, 5})
		a.do(p, path.CloseSockets{Keep: 2})
		want([]uint32{2, 4, 5}, []uint32{2}, []uint32{4, 5})
		q.machine = machine
		a.dropMachine(q)
		want([]uint32{2}, []uint32{2}, nil)
		a.do(p, path.CloseSockets{})
		want(nil, nil, nil)
		n := len(dev.closed)
		a.do(p, path.CloseSockets{})
		if len(dev.closed) != n {
			t.Error("closed what is not open")
		}
		p.machine = machine
		a.do(p, path.OpenSockets{N: 3})
		want(nil, nil, nil) // the machine does not search
		p.machine = nil
		dev.n.noSockets = true
		a.do(p, path.OpenSockets{N: 3})
		want(nil, nil, nil)
	})
}

// TestPathOf turns the ways of a machine into paths of the tunnel.
func TestPathOf(t *testing.T) {
	bench(t, func(a *Agent, dev *device) {
		for _, tt := range []struct {
			way  path.Way
			want Path
			ok   bool
		}{
			{path.Way{}, Path{}, false},
			{path.Way{Kind: path.Direct, To: stranger, Socket: 3}, Path{To: stranger, Socket: 3}, true},
			{relayWay, relayPath, true},
			{path.Way{Kind: path.Stream, Stream: 1}, Path{}, false},
		} {
			if got, ok := a.pathOf(tt.way); got != tt.want || ok != tt.ok {
				t.Errorf("%v: %+v, %v", tt.way, got, ok)
			}
		}
	})
}

// TestSuspects has a path fall silent: the hubs that may share what is dead are
// checked together with it, but not more than once a second, and not those that
// were heard just now.
func TestSuspects(t *testing.T) {
	lab(t, func(w *internet) {
		w.hub("hub")
		w.hub("hub2")
		w.edge("a")
	}, func(t *testing.T, w *internet) {
		a := w.node("a")
		w.run(time.Minute)
		probes := func() (n uint64) {
			for _, s := range a.agent.Status(t.Context()) {
				n += s.Path.Probes
			}
			return n
		}
		heard := func(name string, ago time.Duration) {
			w.node("a").in(func(g *Agent) {
				h := g.peers[w.node(name).key]
				h.last.Heard, h.carried.Heard = time.Now().Add(-ago), time.Time{}
			})
		}
		ask := func() uint64 {
			before := probes()
			a.in(func(g *Agent) { g.suspect(&peer{}) })
			return probes() - before
		}
		heard("hub", time.Second)
		heard("hub2", sampleEvery)
		if n := ask(); n != 1 {
			t.Errorf("%d hubs were checked", n)
		}
		if n := ask(); n != 0 {
			t.Errorf("%d hubs were checked again at once", n)
		}
		w.run(3 * latency) // the check is over
		heard("hub", time.Second)
		heard("hub2", time.Second)
		if n := ask(); n != 1 {
			t.Errorf("%d hubs were checked then", n)
		}
		before := probes()
		a.in(func(g *Agent) { g.suspect(g.hubs[0]) })
		if n := probes() - before; n != 0 {
			t.Errorf("a hub had %d hubs checked", n)
		}
	})
}

// TestProven has a packet come over another way than the pinned path.
func TestProven(t *testing.T) {
	const (
		nothing = iota
		followed
		woken
	)
	direct := Path{To: stranger}
	for _, tt := range []struct {
		name    string
		selfHub bool
		peer    Peer
		way     path.Way
		active  bool
		w       Path
		hellos  uint64 // of the one packet that came
		want    int
	}{
		{"data at an edge, asleep", false, Peer{}, directWay, false, relayPath, 0, woken},
		{"a hello at an edge, asleep", false, Peer{}, directWay, false, relayPath, 1, nothing},
		{"data of a hub at an edge, asleep", false, Peer{Hub: true}, relayWay, false, direct, 0, woken},
		{"a hub that we keep", false, Peer{Hub: true, Keep: true}, directWay, false, direct, 0, nothing},
		{"an edge at a hub, relayed so far", true, Peer{}, relayWay, true, direct, 0, followed},
		{"an edge at a hub, with another address", true, Peer{}, directWay, true, direct, 0, nothing},
		{"an edge at a hub, over a stream", true, Peer{}, directWay, true, Path{Stream: &stream.Conn{}}, 0, followed},
		{"an edge at a hub, asleep", true, Peer{}, directWay, false, direct, 1, followed},
		{"an edge at a hub, asleep, over a relay", true, Peer{}, directWay, false, relayPath, 1, nothing},
		{"an edge at a hub, asleep, data over a relay", true, Peer{}, directWay, false, relayPath, 0, woken},
		{"a hub that keeps us", true, Peer{Hub: true}, directWay, true, direct, 1, followed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bench(t, func(a *Agent, dev *device) {
				tt.peer.Key = key.Public{1}
				p := addPeer(a, dev, tt.peer)
				a.plan.Self.Hub, p.way = tt.selfHub, tt.way
				if tt.active {
					p.deadline = time.Now().Add(time.Minute)
				}
				dev.peers[p.Key].received = 1
				p.chatter.received.Store(tt.hellos)
				a.proven(p, tt.w)
				a.finish()
				set, pin := dev.last(p.Key)
				if got := p.machine == nil; got != (tt.want == followed) || got && (set != tt.w || pin) {
					t.Errorf("followed: %v, path %+v, pinned %v", got, set, pin)
				}
				if got := !tt.active && p.active(); got != (tt.want == woken) {
					t.Errorf("woken: %v", got)
				}
			})
		})
	}
}

// TestSettle decides at a hub about a peer that nobody talks to any more.
func TestSettle(t *testing.T) {
	const (
		nothing = iota
		followed
		parked
	)
	direct := Path{To: stranger}
	for _, tt := range []struct {
		name   string
		path   Path
		asleep time.Duration // for how long
		heard  time.Duration // after it fell asleep
		change func(p *peer)
		want   int
	}{
		{"just asleep", direct, time.Second, 0, nil, nothing},
		{"heard since", direct, 20 * time.Second, 15 * time.Second, nil, followed},
		{"heard as it fell asleep", direct, 20 * time.Second, choresEvery, nil, nothing},
		{"not heard since", direct, settleFor + 1, choresEvery, nil, parked},
		{"heard over a relay", relayPath, 20 * time.Second, 15 * time.Second, nil, nothing},
		{"parked", direct, settleFor + 1, 0, func(p *peer) { p.parked = true }, nothing},
		{"awake", direct, 20 * time.Second, 15 * time.Second, func(p *peer) { p.deadline = time.Now() }, nothing},
		{"a hub that we keep", direct, 20 * time.Second, 15 * time.Second, func(p *peer) { p.Keep = true }, nothing},
		{"no machine", direct, 20 * time.Second, 15 * time.Second, func(p *peer) { p.machine = nil }, nothing},
		{"never slept", direct, 20 * time.Second, 15 * time.Second, func(p *peer) { p.asleep = time.Time{} }, nothing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bench(t, func(a *Agent, dev *device) {
				p := addPeer(a, dev, Peer{Key: key.Public{1}})
				p.way, p.relays = directWay, []path.RelayWay{{Way: relayWay}}
				p.asleep = time.Now().Add(-tt.asleep)
				x := dev.peers[p.Key]
				x.path, x.pinned, x.heard = tt.path, true, p.asleep.Add(tt.heard)
				if tt.change != nil {
					tt.change(p)
				}
				machine, was := p.machine, p.parked
				a.settle(p, time.Now())
				set, pin := dev.last(p.Key)
				if got := p.machine != machine; got != (tt.want == followed) || got && (set != tt.path || pin || !p.inSession) {
					t.Errorf("followed: %v, path %+v, pinned %v, session %v", got, set, pin, p.inSession)
				}
				if got := p.parked && !was; got != (tt.want == parked) || got && (set != relayPath || !pin) {
					t.Errorf("parked: %v, path %+v, pinned %v", got, set, pin)
				}
			})
		})
	}
}

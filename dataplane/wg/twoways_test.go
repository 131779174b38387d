package wg

import (
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane/key"
)

var (
	second = way{to: netip.MustParseAddrPort("[2001:db8::1]:4500"), local: netip.MustParseAddr("2001:db8::200")}
	third  = way{to: netip.MustParseAddrPort("192.0.2.9:4500")}
)

// proves has a prove that it sends from w.
func (x *crossroads) proves(w way) { x.reader.b.prove(x.a, newSource(w, 1, x.a)) }

func (x *crossroads) moveA(w way, pin bool) {
	x.reader.b.table.setPath(x.a, newPath(w, pin, 0), nil)
}

// TestTwoWays has a peer, whose path is pinned, send from elsewhere: its relay
// frames count from there once it proved that, and only as long as the path stays.
func TestTwoWays(t *testing.T) {
	moved := way{to: netip.MustParseAddrPort("192.0.2.1:4501")}
	other := &sink{room: 10}
	for _, c := range []struct {
		name   string
		before func(x *crossroads)
		from   way
		ok     bool
	}{
		{"nothing is proven", func(*crossroads) {}, second, false},
		{"proven", func(x *crossroads) { x.proves(second) }, second, true},
		{"proven, at another address of ours", func(x *crossroads) { x.proves(second) }, way{to: second.to}, true},
		{"proven, from its path", func(x *crossroads) { x.proves(second) }, way{to: atA}, true},
		{"a stranger's address", func(x *crossroads) { x.proves(second) }, third, false},
		{"a stranger's port", func(x *crossroads) { x.proves(second) }, way{to: netip.MustParseAddrPort("[2001:db8::1]:4501")}, false},
		{"another socket", func(x *crossroads) { x.proves(second) }, way{to: second.to, socket: 3}, false},
		{"a stranger's stream", func(x *crossroads) { x.proves(second) }, way{stream: other}, false},
		{"a stream", func(x *crossroads) { x.proves(way{stream: other}) }, way{stream: other}, true},
		{"only claimed", func(x *crossroads) {
			x.reader.b.table.note(x.a, 7)
			x.feedFrame(second, nil, message(100, 4, 0, 0, 0, 7))
		}, second, false},
		{"of another peer", func(x *crossroads) {
			x.reader.b.prove(x.c, newSource(second, 1, x.c))
		}, second, false},
		{"a third way, from the second", func(x *crossroads) { x.proves(second); x.proves(third) }, second, false},
		{"a third way, from there", func(x *crossroads) { x.proves(second); x.proves(third) }, third, true},
		{"back on its path", func(x *crossroads) {
			x.proves(second)
			_ = x.reader.b.Send([][]byte{message(100, 4)}, x.a)
		}, second, false},
		{"back on its path, at another address of ours", func(x *crossroads) {
			x.proves(second)
			x.proves(way{to: atA, local: netip.MustParseAddr("192.0.2.201")})
		}, second, false},
		{"behind a relay since", func(x *crossroads) {
			x.proves(second)
			x.proves(way{via: x.c, label: 5})
		}, second, false},
		{"the path moved", func(x *crossroads) { x.proves(second); x.moveA(moved, true) }, second, false},
		{"the path moved there", func(x *crossroads) { x.moveA(second, true) }, second, true},
		{"the path moved there and back", func(x *crossroads) {
			x.proves(second)
			x.moveA(second, true)
			x.moveA(way{to: atA}, true)
		}, second, false},
		{"the path is the same, not pinned", func(x *crossroads) { x.proves(second); x.moveA(way{to: atA}, false) }, second, false},
		{"the path is a relay", func(x *crossroads) {
			x.moveA(way{via: x.c, label: 5}, true)
			x.proves(second)
		}, second, false},
		{"no path", func(x *crossroads) {
			x.proves(second)
			x.reader.b.table.setPath(x.a, nil, nil)
		}, second, false},
		{"came before the path moved", func(x *crossroads) {
			s := newSource(second, 1, x.a)
			x.moveA(moved, true)
			x.reader.b.prove(x.a, s)
		}, second, false},
		{"came after the path moved", func(x *crossroads) { x.moveA(moved, true); x.proves(second) }, second, true},
		{"came while the path moved", func(x *crossroads) {
			was := x.a.path.Load()
			x.moveA(moved, true)
			x.reader.b.table.cameBy(x.a, &second, was)
		}, second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newCrossroads()
			c.before(x)
			x.feedFrame(c.from, nil, frame(10, message(100, 4)))
			relayed, refused := len(x.out.got), x.b0(dropHop)
			if c.ok && (relayed != 1 || refused != 0) || !c.ok && (relayed != 0 || refused != 1) {
				t.Errorf("relayed %d, refused %d", relayed, refused)
			}
		})
	}
}

// TestTwoWaysOfAnEdge pins the hub's path to an edge on IPv6 while the edge sends
// by IPv4: what the edge has relayed arrives, and no path moves.
func TestTwoWaysOfAnEdge(t *testing.T) {
	need6(t)
	a, b, hub := trio(t)
	ka, kb, kh := a.key.Public(), b.key.Public(), hub.key.Public()
	byV4, byV6 := Path{To: hub.at("127.0.0.1")}, Path{To: a.at("::1")}
	a.SetPath(kh, byV4, true)
	hub.SetPath(ka, byV6, true)
	a.SetPath(kb, Path{Via: kh, Label: labelA}, true)
	b.SetPath(ka, Path{Via: kh, Label: labelB}, true)
	exchange(t, a, hub, 10)
	// What is sent after a packet came tells that it was authentic.
	exchange(t, hub, a, 11)
	exchange(t, a, hub, 12)
	for i := range uint32(20) {
		exchange(t, a, b, 20+2*i)
		exchange(t, b, a, 21+2*i)
	}
	if n := hub.drop(dropHop) + a.drop(dropHop); n != 0 {
		t.Errorf("%d frames were refused", n)
	}
	if p, _, _ := hub.Path(ka); p.To != byV6.To {
		t.Errorf("the hub's path is %+v", p)
	}
	if p, _, _ := a.Path(kh); p.To != byV4.To {
		t.Errorf("the edge's path is %+v", p)
	}
}

// TestEndStreamOfTwoWays: a stream that has ended is not kept as where a peer
// sends from.
func TestEndStreamOfTwoWays(t *testing.T) {
	n := newNode(t, "10.0.0.1")
	p := n.table.add(key.Public{1})
	n.table.setPath(p, newPath(way{to: atA}, true, 0), nil)
	ended, lives := &sink{}, &sink{}
	for _, s := range []*sink{ended, lives} {
		n.bind.prove(p, newSource(way{stream: s}, 1, p))
		n.EndStream(ended)
		if from := p.from.Load(); (from == nil) != (s == ended) {
			t.Errorf("sends from %+v", from)
		}
	}
}

func TestTwoWaysAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	bind := newTestBind() // without sockets: nothing else runs
	to := netip.MustParseAddrPort("192.0.2.99:4500")
	r, grams := relayBatch(bind, to, 20, batchSize, 4)
	var sources []conn.Endpoint
	for i := range 20 {
		src := bind.table.get(key.Public{1, byte(i)})
		was := src.path.Load().way
		bind.table.setPath(src, newPath(way{to: to}, true, 0), nil)
		sources = append(sources, newSource(was, 1, src))
	}
	bufs := [][]byte{message(1452, 4)}
	once := func() {
		for _, s := range sources { // as if packets had come in each batch
			s.(*source).tell.Store(true)
			if err := bind.Send(bufs, s); err != nil {
				t.Fatal(err)
			}
		}
		relayAll(r, grams)
	}
	once()
	if got := testing.AllocsPerRun(100, once); got != 0 {
		t.Errorf("%v allocations", got)
	}
	if refused, came := bind.drops.n[dropHop].Load(), bind.relays.status(); refused != 0 || len(came) != 20 {
		t.Errorf("%d refused, pairs %+v", refused, came)
	}
}

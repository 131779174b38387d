package nat

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/time/rate"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/stream"
	"corax/nat/stun"
)

func newTx() (tx stun.TxID) {
	fill(tx[:])
	return tx
}

// probeFor is a probe as one node makes it for another.
func probeFor(t *testing.T, to, from *node, change func(p *stun.Probe, k *stun.ProbeKey)) []byte {
	t.Helper()
	p := stun.Probe{Tx: newTx(), To: to.agent.probeID, From: from.agent.probeID}
	k := to.agent.probeKey
	if change != nil {
		change(&p, &k)
	}
	b, err := stun.AppendProbe(nil, p, k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// drops are the counters of what was dropped that are not zero.
func (n *node) drops() map[string]uint64 {
	out := make(map[string]uint64)
	for r := range dropReasons {
		if v := n.counter("nat_drop_total", r.String()); v != 0 {
			out[r.String()] = v
		}
	}
	return out
}

// take has n receive a datagram, and returns what it sent at once because of it.
func (n *node) take(d Datagram) []Raw {
	n.dev.mu.Lock()
	before := len(n.dev.sent)
	n.dev.mu.Unlock()
	n.agent.Receive(d)
	synctest.Wait()
	n.dev.mu.Lock()
	defer n.dev.mu.Unlock()
	return n.dev.sent[before:]
}

var stranger = netip.MustParseAddrPort("192.0.2.66:6666")

// TestDrops gives an edge, or a hub, what it must not heed: it is counted, and
// nothing else happens.
func TestDrops(t *testing.T) {
	tests := []struct {
		name   string
		to     string // "a" unless set
		make   func(t *testing.T, w *internet) Datagram
		reason string
	}{
		{"no STUN", "", func(*testing.T, *internet) Datagram {
			return Datagram{From: stranger, Data: make([]byte, 20)}
		}, "malformed"},
		{"an indication", "", func(*testing.T, *internet) Datagram {
			b := stun.AppendRequest(nil, newTx(), stun.RequestOptions{})
			b[1] = 0x11
			return Datagram{From: stranger, Data: b}
		}, "useless"},
		{"another probe id", "", func(t *testing.T, w *internet) Datagram {
			return Datagram{From: stranger, Data: probeFor(t, w.node("a"), w.node("b"), func(p *stun.Probe, _ *stun.ProbeKey) { p.To[0] ^= 1 })}
		}, "unknown_probe"},
		{"another key", "", func(t *testing.T, w *internet) Datagram {
			return Datagram{From: stranger, Data: probeFor(t, w.node("a"), w.node("b"), func(_ *stun.Probe, k *stun.ProbeKey) { k[0] ^= 1 })}
		}, "bad_mac"},
		{"another sender", "", func(t *testing.T, w *internet) Datagram {
			return Datagram{From: stranger, Data: probeFor(t, w.node("a"), w.node("b"), func(p *stun.Probe, _ *stun.ProbeKey) { p.From[0] ^= 1 })}
		}, "unknown_sender"},
		{"another sender over a relay", "", func(t *testing.T, w *internet) Datagram {
			return Datagram{From: stranger, Via: w.node("hub").key, Peer: key.Public{7}, Data: probeFor(t, w.node("a"), w.node("b"), func(p *stun.Probe, _ *stun.ProbeKey) { p.From[0] ^= 1 })}
		}, "unknown_sender"},
		{"the origin of a relay is another", "", func(t *testing.T, w *internet) Datagram {
			return Datagram{From: stranger, Via: w.node("hub").key, Peer: w.node("c").key, Data: probeFor(t, w.node("a"), w.node("b"), nil)}
		}, "wrong_origin"},
		{"the peer of a stream is another", "", func(t *testing.T, w *internet) Datagram {
			return Datagram{Stream: new(stream.Conn), Peer: w.node("hub").key, Data: probeFor(t, w.node("a"), w.node("b"), nil)}
		}, "wrong_origin"},
		{"a relay that we have no label of", "", func(t *testing.T, w *internet) Datagram {
			return Datagram{From: stranger, Via: w.node("b").key, Peer: w.node("c").key, Data: probeFor(t, w.node("a"), w.node("c"), nil)}
		}, "no_way_back"},
		{"an answer that nobody waits for", "", func(t *testing.T, w *internet) Datagram {
			return Datagram{From: stranger, Data: stun.AppendAnswer(nil, newTx(), stranger, w.node("b").agent.probeKey)}
		}, "unsolicited"},
		{"a response that nobody waits for", "", func(t *testing.T, _ *internet) Datagram {
			b, ok := new(stun.Server).Answer(nil, stun.AppendRequest(nil, newTx(), stun.RequestOptions{}), stranger, time.Now())
			if !ok {
				t.Fatal("no response")
			}
			return Datagram{From: stranger, Data: b}
		}, "unsolicited"},
		{"an answer with another key", "", func(_ *testing.T, w *internet) Datagram {
			tx := newTx()
			w.node("a").agent.inbox.expect(tx, flight{peer: w.node("b").key, at: time.Now()})
			return Datagram{From: stranger, Data: stun.AppendAnswer(nil, tx, stranger, stun.ProbeKey{1})}
		}, "bad_mac"},
		{"an answer of another origin", "", func(_ *testing.T, w *internet) Datagram {
			tx := newTx()
			w.node("a").agent.inbox.expect(tx, flight{peer: w.node("b").key, at: time.Now()})
			return Datagram{From: stranger, Via: w.node("hub").key, Peer: w.node("c").key, Data: stun.AppendAnswer(nil, tx, stranger, w.node("b").agent.probeKey)}
		}, "wrong_origin"},
		{"an answer of a peer that is gone", "", func(_ *testing.T, w *internet) Datagram {
			tx := newTx()
			w.node("a").agent.inbox.expect(tx, flight{peer: key.Public{7}, at: time.Now()})
			return Datagram{From: stranger, Data: stun.AppendAnswer(nil, tx, stranger, w.node("b").agent.probeKey)}
		}, "unsolicited"},
		{"an answer where a server's is waited for", "", func(_ *testing.T, w *internet) Datagram {
			tx := newTx()
			w.node("a").agent.inbox.expect(tx, flight{purpose: forSTUN, at: time.Now()})
			return Datagram{From: stranger, Data: stun.AppendAnswer(nil, tx, stranger, w.node("b").agent.probeKey)}
		}, "unsolicited"},
		{"too many probes", "", func(t *testing.T, w *internet) Datagram {
			w.node("a").in(func(a *Agent) { a.limiter = rate.NewLimiter(0, 0) })
			return Datagram{From: stranger, Data: probeFor(t, w.node("a"), w.node("b"), nil)}
		}, "probe_rate"},
		{"too many answers", "", func(_ *testing.T, w *internet) Datagram {
			w.node("a").in(func(a *Agent) { a.limiter = rate.NewLimiter(0, 0) })
			tx := newTx()
			w.node("a").agent.inbox.expect(tx, flight{peer: w.node("b").key, at: time.Now()})
			return Datagram{From: stranger, Data: stun.AppendAnswer(nil, tx, stranger, w.node("b").agent.probeKey)}
		}, "probe_rate"},
		{"a request to an edge", "", func(*testing.T, *internet) Datagram {
			return Datagram{From: stranger, Data: stun.AppendRequest(nil, newTx(), stun.RequestOptions{})}
		}, "not_hub"},
		{"a request over a relay", "hub", func(_ *testing.T, w *internet) Datagram {
			return Datagram{From: stranger, Via: w.node("a").key, Peer: w.node("b").key, Data: stun.AppendRequest(nil, newTx(), stun.RequestOptions{})}
		}, "not_hub"},
		{"a request over a stream", "hub", func(_ *testing.T, w *internet) Datagram {
			return Datagram{From: stranger, Stream: new(stream.Conn), Peer: w.node("b").key, Data: stun.AppendRequest(nil, newTx(), stun.RequestOptions{})}
		}, "not_hub"},
	}
	lab(t, func(w *internet) {
		w.hub("hub")
		w.edge("a")
		w.edge("b")
		w.edge("c")
	}, func(t *testing.T, w *internet) {
		a := w.node("a")
		w.run(5 * time.Second)
		for _, x := range []*node{w.node("b"), w.node("c")} {
			stop := a.talk(x)
			w.run(5 * time.Second)
			stop()
		}
		w.run(2 * time.Second)
		for _, tt := range tests {
			n := a
			if tt.to != "" {
				n = w.node(tt.to)
			}
			d := tt.make(t, w)
			want := n.drops()
			want[tt.reason]++
			status := n.agent.Status(t.Context())
			if sent := n.take(d); len(sent) != 0 {
				t.Errorf("%s: sent %v", tt.name, sent)
			}
			if d := cmp.Diff(want, n.drops()); d != "" {
				t.Errorf("%s: drops (-want +got)\n%s", tt.name, d)
			}
			for k, s := range n.agent.Status(t.Context()) {
				if was := status[k].Path; s.Path.Probes != was.Probes || s.Path.BadAnswers != was.BadAnswers || s.Path.Heard != was.Heard {
					t.Errorf("%s: a machine took notice: %+v", tt.name, s.Path)
				}
			}
			a.in(func(a *Agent) { a.limiter = rate.NewLimiter(maxProbes, maxProbes) })
		}
	})
}

// TestAnswers gives nodes what they must answer.
func TestAnswers(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		hub, a, b := w.node("hub"), w.node("a"), w.node("b")
		w.run(5 * time.Second)
		stop := a.talk(b)
		w.run(5 * time.Second)
		stop()
		w.run(2 * time.Second)
		before := a.drops()
		check := func(name string, sent []Raw, to Path, kind stun.Kind, mapped netip.AddrPort) {
			t.Helper()
			if len(sent) == 0 {
				t.Errorf("%s: no answer", name)
				return
			}
			m, err := stun.Parse(sent[0].Data)
			if err != nil || m.Kind != kind || m.Mapped != mapped || sent[0].Path != to {
				t.Errorf("%s: sent %+v over %+v, %v", name, m, sent[0].Path, err)
			}
			if kind == stun.KindAnswer && !m.Verify(a.agent.probeKey) {
				t.Errorf("%s: not under the receiver's key", name)
			}
		}
		local := netip.MustParseAddr("10.2.0.2")
		check("a probe", a.take(Datagram{From: stranger, Local: local, Socket: 3, Data: probeFor(t, a, b, nil)}),
			Path{To: stranger, Local: local, Socket: 3}, stun.KindAnswer, stranger)

		var label uint64
		a.in(func(g *Agent) { label = g.book.Relays(b.key)[0].Label })
		check("a probe over a relay", a.take(Datagram{From: stranger, Via: hub.key, Peer: b.key, Label: label, Data: probeFor(t, a, b, nil)}),
			Path{Via: hub.key, Label: label}, stun.KindAnswer, netip.AddrPortFrom(b.key.Overlay(), hello.Port))

		conn := new(stream.Conn)
		a.dev.dry = true
		check("a probe over a stream", a.take(Datagram{Stream: conn, Peer: hub.key, Data: probeFor(t, a, hub, nil)}),
			Path{Stream: conn}, stun.KindAnswer, netip.AddrPortFrom(hub.key.Overlay(), hello.Port))

		check("a plain request", hub.take(Datagram{From: stranger, Local: hub.addr, Data: stun.AppendRequest(nil, newTx(), stun.RequestOptions{})}),
			Path{To: stranger, Local: hub.addr}, stun.KindResponse, stranger)
		if d := cmp.Diff(before, a.drops()); d != "" {
			t.Errorf("drops (-want +got)\n%s", d)
		}

		// Who is not known by its probe id yet is known by the relay.
		a.in(func(g *Agent) { delete(g.byProbeID, b.agent.probeID) })
		check("a probe of a relayed peer that told nothing", a.take(Datagram{From: stranger, Via: hub.key, Peer: b.key, Label: label, Data: probeFor(t, a, b, nil)}),
			Path{Via: hub.key, Label: label}, stun.KindAnswer, netip.AddrPortFrom(b.key.Overlay(), hello.Port))
		if sent := a.take(Datagram{From: stranger, Via: hub.key, Peer: b.key, Label: label + 1, Data: probeFor(t, a, b, nil)}); len(sent) > 0 {
			t.Errorf("a probe over another circuit is answered over %+v", sent[0].Path)
		}
	})
}

func TestQueueFull(t *testing.T) {
	n := newInternet(t).add(&node{name: "a"})
	n.agent = newAgent(t, n)
	data := probeFor(t, n, n, nil)
	for range maxDatagrams + 3 {
		n.agent.Receive(Datagram{From: stranger, Data: data})
	}
	if d := cmp.Diff(map[string]uint64{"queue_full": 3}, n.drops()); d != "" {
		t.Errorf("drops (-want +got)\n%s", d)
	}
	data[8] ^= 1 // the datagram was the caller's
	if m := <-n.agent.inbox.datagrams; m.Data[8] == data[8] {
		t.Error("the caller's memory was kept")
	}
}

// newAgent makes an agent that does not run.
func newAgent(t *testing.T, n *node) *Agent {
	t.Helper()
	n.dev = newDevice(n)
	a, err := New(Config{
		Private: n.secret, Conn: helloConn{device: n.dev}, Port: 4500,
		Prefixes: func() []netip.Prefix { return nil },
		Gateways: func() []netip.Addr { return nil },
		Open:     func(func() error) error { return errNoSockets },
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestFlights(t *testing.T) {
	b, now := newInbox(), time.Now()
	tx := func(i int) stun.TxID { return stun.TxID{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range maxFlights {
		if !b.expect(tx(i), flight{at: now.Add(time.Duration(i) * time.Millisecond)}) {
			t.Fatalf("flight %d was refused", i)
		}
	}
	if b.expect(stun.TxID{11: 1}, flight{at: now}) {
		t.Error("there is no bound")
	}
	b.land(tx(1))
	for i, want := range []bool{true, false, true} {
		if _, ok := b.expected(tx(i)); ok != want {
			t.Errorf("flight %d: expected %v", i, ok)
		}
	}
	b.expire(now.Add(flightFor + time.Millisecond))
	for i, want := range []bool{false, false, true} {
		if _, ok := b.expected(tx(i)); ok != want {
			t.Errorf("flight %d after a while: expected %v", i, ok)
		}
	}
	if b.expire(now.Add(time.Hour)); len(b.flights) != 0 {
		t.Errorf("%d flights are left", len(b.flights))
	}
}

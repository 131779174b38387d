package natlab_test

import (
	"testing"
	"time"

	"corax/nat/natlab"
	"corax/nat/path"
)

// star is two edges with NATs that cannot be opened, and three hubs, with a
// link of its own between each edge and each hub.
func star(seed uint64, latencies [3]time.Duration) (*pair, [3]*hub) {
	s := newSim(seed, natlab.Link{Latency: 5 * time.Millisecond}, 0)
	var hubs [3]*hub
	for i := range hubs {
		hubs[i] = s.addHub(natlab.Link{})
	}
	sa, sb := s.addSite(symmetric, natlab.Link{}), s.addSite(symmetric, natlab.Link{})
	for i, h := range hubs {
		setHub(s, sa, h, latencies[i], 0)
		setHub(s, sb, h, latencies[i], 0)
	}
	pr := &pair{sim: s}
	pr.a, pr.b = connect(s.addEdge(sa, natlab.Link{}, hubs[:]...), s.addEdge(sb, natlab.Link{}, hubs[:]...))
	s.lab.Run(10 * time.Second)
	return pr, hubs
}

// setHub sets the link between a site and a hub; jitter is a share of it.
func setHub(s *sim, st *site, h *hub, latency time.Duration, jitter float64) {
	s.wan.SetPair(st.routers[len(st.routers)-1].Outside(), h.ifc, natlab.Link{
		Latency: latency, Jitter: time.Duration(float64(latency) * jitter),
	})
}

func (pr *pair) via(h *hub) func() bool {
	return func() bool { return pr.a.way.Hub == h.key && pr.b.way.Hub == h.key }
}

// TestCheapestRelay chooses the cheapest of three relays, and follows when
// another becomes clearly cheaper, without losing anything on the way.
func TestCheapestRelay(t *testing.T) {
	for seed := range uint64(10) {
		pr, hubs := star(seed, [3]time.Duration{60 * time.Millisecond, 20 * time.Millisecond, 90 * time.Millisecond})
		pr.start(20*time.Millisecond, 0)
		if !pr.lab.RunUntil(10*time.Second, pr.via(hubs[1])) {
			t.Fatalf("not over the cheapest relay\n%s", pr.explain(seed))
		}
		pr.lab.Run(20 * time.Second)
		if !pr.via(hubs[1])() {
			t.Fatalf("left the cheapest relay\n%s", pr.explain(seed))
		}
		for _, st := range pr.sites {
			setHub(pr.sim, st, hubs[2], 5*time.Millisecond, 0)
		}
		if !pr.lab.RunUntil(2*time.Minute, pr.via(hubs[2])) {
			t.Fatalf("did not follow to the relay that became cheaper\n%s", pr.explain(seed))
		}
		pr.lab.Run(10 * time.Second)
		for _, d := range [][2]*peer{{pr.a, pr.b}, {pr.b, pr.a}} {
			end := pr.lab.Now().Add(-time.Second)
			if gap, at := d[0].traffic.gap(&d[1].traffic, d[1].traffic.started, end, nil); gap > 0 || !at.IsZero() {
				t.Errorf("seed %d: lost %v at a change between working relays", seed, gap)
			}
			if d[0].traffic.doubled > 0 {
				t.Errorf("seed %d: %d packets doubled", seed, d[0].traffic.doubled)
			}
		}
	}
}

// TestNoFlap lets all links jitter by a fifth for five minutes: relays that
// cost nearly the same must not take turns.
func TestNoFlap(t *testing.T) {
	for seed := range uint64(10) {
		pr, hubs := star(seed, [3]time.Duration{50 * time.Millisecond, 52 * time.Millisecond, 55 * time.Millisecond})
		for i, h := range hubs {
			for _, st := range pr.sites {
				setHub(pr.sim, st, h, time.Duration(50+2*i)*time.Millisecond, 0.2)
			}
		}
		pr.start(50*time.Millisecond, 20*time.Millisecond)
		pr.lab.Run(20 * time.Second)
		settled := [2]int{len(pr.a.changes), len(pr.b.changes)}
		pr.lab.Run(5 * time.Minute)
		if n := len(pr.a.changes) + len(pr.b.changes) - settled[0] - settled[1]; n > 0 {
			t.Errorf("%d changes in five minutes\n%s", n, pr.explain(seed))
		}
	}
}

// TestNoFlapDirect is the same for a direct way beside relays.
func TestNoFlapDirect(t *testing.T) {
	for seed := range uint64(10) {
		pr := newPair(seed, portRestricted, fullCone, 0)
		pr.wan.SetLink(natlab.Link{Latency: 40 * time.Millisecond, Jitter: 8 * time.Millisecond, Loss: 0.01, Reorder: 0.02})
		pr.start(50*time.Millisecond, 20*time.Millisecond)
		if !pr.lab.RunUntil(20*time.Second, pr.direct) {
			t.Fatalf("not direct\n%s", pr.explain(seed))
		}
		pr.lab.Run(time.Second)
		settled := len(pr.a.changes) + len(pr.b.changes)
		pr.lab.Run(5 * time.Minute)
		if n := len(pr.a.changes) + len(pr.b.changes) - settled; n > 0 {
			t.Errorf("%d changes in five minutes\n%s", n, pr.explain(seed))
		}
	}
}

// TestTwoRelays has edges without a common hub: the way goes over two.
func TestTwoRelays(t *testing.T) {
	s := newSim(1, wanLink, 0)
	h1, h2 := s.addHub(natlab.Link{}), s.addHub(natlab.Link{})
	pr := &pair{sim: s}
	pr.a, pr.b = connect(s.addEdge(s.addSite(symmetric, accessLink), accessLink, h1), s.addEdge(s.addSite(symmetric, accessLink), accessLink, h2))
	s.lab.Run(5 * time.Second)
	pr.start(100*time.Millisecond, 0)
	s.lab.Run(20 * time.Second)
	if first, ok := pr.firstByte(); !ok || first > time.Second {
		t.Fatalf("first byte after %v\n%s", first, pr.explain(1))
	}
	if via := pr.a.m.Status().Via; len(via) != 2 || via[0] != h1.key || via[1] != h2.key {
		t.Errorf("via %v, want both hubs\n%s", via, pr.explain(1))
	}
}

// TestIdle checks that peers without traffic cost nothing: after the traffic
// has ended only the sessions with the hubs send keepalives, and no machine
// wants to be called.
func TestIdle(t *testing.T) {
	for _, kind := range []siteKind{fullCone, symmetric, blocked} {
		pr := newPair(uint64(kind), kind, portRestricted, 0)
		for range 20 { // peers that nobody ever wants
			other := pr.addEdge(pr.addSite(public, accessLink), accessLink, pr.hubs...)
			connect(pr.a.e, other)
		}
		pr.start(100*time.Millisecond, 0)
		pr.lab.Run(30 * time.Second)
		pr.a.traffic.stop, pr.b.traffic.stop = true, true
		pr.lab.Run(3 * time.Minute)
		for _, p := range []*peer{pr.a, pr.b} {
			if st := p.m.Status(); st.Active || st.Why != path.ReasonIdle {
				t.Errorf("%v: edge%d is not idle: %v", kind, p.e.id, st.Why)
			}
		}
		for _, p := range pr.a.e.edgePeers() {
			if at := p.m.Deadline(); !at.IsZero() {
				t.Errorf("%v: machine of peer %d wants to be called at %v", kind, p.id, at)
			}
			if n := p.m.Status().Probes; n > 0 && p != pr.a {
				t.Errorf("%v: %d probes to peer %d that nobody wants", kind, n, p.id)
			}
		}
		before := pr.a.e.host.Sent()
		const idle = 10 * time.Minute
		pr.lab.Run(idle)
		if sent, most := pr.a.e.host.Sent()-before, len(pr.hubs)*int(idle/idleKeepalive+1); sent > most {
			t.Errorf("%v: %d packets in %v, want at most %d keepalives", kind, sent, idle, most)
		}
		// And it wakes up at once.
		lost := pr.b.traffic.lost(&pr.a.traffic)
		pr.a.start(100 * time.Millisecond)
		pr.lab.Run(5 * time.Second)
		if now := pr.b.traffic.lost(&pr.a.traffic); now-lost > 11 {
			t.Errorf("%v: %d of 50 packets lost after the pause\n%s", kind, now-lost, pr.explain(uint64(kind)))
		}
	}
}

// TestMTUSearch finds what fits through the narrowest link, told or not, and
// what fits when it becomes narrower.
func TestMTUSearch(t *testing.T) {
	const overhead = 20 + 8 + 32 // IPv4, UDP, WireGuard
	for _, tt := range []struct {
		mtu    int
		silent bool
		want   int
	}{
		{1500, false, 1408},
		{1400, false, (1400 - overhead) &^ 15},
		{1400, true, (1400 - overhead) &^ 15},
		{1280, true, (1280 - overhead) &^ 15},
	} {
		pr := newPair(1, portRestricted, portRestricted, 0)
		pr.wan.SetLink(natlab.Link{Latency: 10 * time.Millisecond, MTU: tt.mtu, Silent: tt.silent})
		pr.start(100*time.Millisecond, 0)
		pr.lab.Run(60 * time.Second)
		if pr.a.mtu != tt.want || pr.b.mtu != tt.want || !pr.direct() {
			t.Errorf("MTU %d, silent %v: found %d and %d, want %d\n%s", tt.mtu, tt.silent, pr.a.mtu, pr.b.mtu, tt.want, pr.explain(1))
		}
	}
}

// TestStrangers answers no probe that names another peer or comes from none.
func TestStrangers(t *testing.T) {
	pr := newPair(1, public, public, 0)
	pr.start(100*time.Millisecond, 0)
	pr.lab.Run(5 * time.Second)
	answered := 0
	evil := pr.lab.Host("evil")
	evil.Attach(pr.wan, natlab.Link{}, prefixes("192.0.2.66/32")...)
	sock := evil.Listen(9, func(time.Time, natlab.Datagram) { answered++ })
	before := pr.a.m.Status()
	for i := range 200 {
		probe := append(head(pktProbe, i, pr.a.e.id), make([]byte, 12)...)
		if i == pr.b.e.id || i < len(pr.hubs)+1 {
			continue
		}
		_ = sock.Send(pr.b.way.To, probe, 0, false)
		_ = sock.Send(pr.b.way.To, append(head(pktAnswer, pr.b.e.id, pr.a.e.id), make([]byte, 12)...), 0, false)
	}
	pr.lab.Run(time.Second)
	after := pr.a.m.Status()
	if answered > 0 {
		t.Errorf("%d answers to a stranger", answered)
	}
	if after.Way != before.Way || after.BadAnswers < before.BadAnswers+100 {
		t.Errorf("forged answers: way %v to %v, %d counted", before.Way, after.Way, after.BadAnswers-before.BadAnswers)
	}
}

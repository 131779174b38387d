package wg

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

const labelA, labelB Label = 0x11_2233_4455_6677, 0xFF_EEDD_CCBB_AA99 // what a and b know the other by

// trio returns two edges that know where the hub is, not where the other is. The
// hub has sessions with both, and labels are set up.
func trio(t *testing.T, change ...func(*Config)) (a, b, hub *node) {
	t.Helper()
	a, b, hub = newNode(t, "10.0.0.1", change...), newNode(t, "10.0.0.2", change...), newNode(t, "10.0.0.3")
	mustPeers(t, a, b.peer(netip.AddrPort{}), hub.peer(hub.at("127.0.0.1")))
	mustPeers(t, b, a.peer(netip.AddrPort{}), hub.peer(hub.at("127.0.0.1")))
	mustPeers(t, hub, a.peer(netip.AddrPort{}), b.peer(netip.AddrPort{}))
	ka, kb, kh := a.key.Public(), b.key.Public(), hub.key.Public()
	hub.SetLabels(map[Label]Forward{labelA: {ka, kb, labelB}, labelB: {kb, ka, labelA}})
	a.SetLabels(map[Label]Forward{labelA: {From: kh, To: kb}})
	b.SetLabels(map[Label]Forward{labelB: {From: kh, To: ka}})
	exchange(t, a, hub, 1)
	exchange(t, b, hub, 2)
	return a, b, hub
}

// wire is one end of a stream: what is sent there is injected at the other.
type wire struct {
	from, to *node
	other    *wire
	queue    chan [][]byte
}

// newWires joins two nodes by a stream, and returns the ends that each sends to.
func newWires(t *testing.T, a, b *node) (atA, atB *wire) {
	t.Helper()
	atA = &wire{from: a, to: b, queue: make(chan [][]byte, 64)}
	atB = &wire{from: b, to: a, queue: make(chan [][]byte, 64), other: atA}
	atA.other = atB
	done := make(chan struct{})
	var loops sync.WaitGroup
	for _, w := range []*wire{atA, atB} {
		loops.Go(func() { w.carry(done) })
	}
	t.Cleanup(func() { close(done); loops.Wait() })
	return atA, atB
}

func (w *wire) carry(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case batch := <-w.queue:
			w.to.Inject(w.from.key.Public(), w.other, batch)
		}
	}
}

func (w *wire) Send(datagrams [][]byte) int {
	batch := make([][]byte, len(datagrams))
	for i, d := range datagrams {
		batch[i] = bytes.Clone(d)
	}
	select {
	case w.queue <- batch:
		return len(batch)
	default:
		return 0
	}
}

func TestRelayedPair(t *testing.T) {
	a, b, hub := trio(t)
	b.bind.limiter.SetBurst(0) // the label names the origin: nothing is opened
	b.bind.limiter.SetLimit(0)
	via := Path{Via: hub.key.Public(), Label: labelA}
	a.SetPath(b.key.Public(), via, true)
	exchange(t, a, b, 10)
	exchange(t, b, a, 11)
	for i := range uint32(20) {
		exchange(t, a, b, 20+i)
		exchange(t, b, a, 20+i)
	}
	if p, heard, ok := b.Path(a.key.Public()); !ok || heard.IsZero() || p != (Path{Via: hub.key.Public(), Label: labelB}) {
		t.Errorf("b's path to a is %+v, heard %v", p, heard)
	}
	s := a.status(b.key.Public())
	if s.Via != hub.key.Public() || s.Endpoint.IsValid() || s.Stream || s.Proven.IsZero() || s.LastHandshake.IsZero() {
		t.Errorf("status %+v", s)
	}
	if got := a.table.get(b.key.Public()).DstToString(); got != hub.at("127.0.0.1").String() {
		t.Errorf("the user API shows %s, want the hub's address", got)
	}
	for _, r := range hub.Relayed() {
		if r.Packets < 20 || r.Bytes < 20*100 || r.Drops != 0 {
			t.Errorf("pair %+v", r)
		}
	}
	if len(hub.Relayed()) != 2 || len(hub.got) != 0 {
		t.Errorf("%d pairs, and the hub read %d packets beyond those for it", len(hub.Relayed()), len(hub.got))
	}
	if n := a.drop(dropOrigin) + b.drop(dropOrigin) + a.drop(dropLabel) + b.drop(dropHop) + hub.drop(dropHop); n != 0 {
		t.Errorf("%d good frames were dropped", n)
	}
	act, ok := b.Activity(a.key.Public())
	if !ok || act.Received < 21 || act.Sent < 21 || act.Path.Via != hub.key.Public() || act.Heard.IsZero() {
		t.Errorf("activity %+v", act)
	}
}

// stream sends count packets from a to b, a few at a time, and calls change
// between; every one must arrive, once.
func stream(t *testing.T, a, b *node, count int, change func(i int)) {
	t.Helper()
	const each = 25
	seen := make([]bool, count)
	timeout := time.After(patience)
	for i := 0; i < count; i += each {
		change(i / each)
		var batch []dataplane.Packet
		for j := i; j < i+each; j++ {
			batch = append(batch, dataplane.Packet{Data: packet(a.ip, b.ip, 1300, uint32(j))})
		}
		a.Send(batch)
		for left := each; left > 0; {
			select {
			case got := <-b.got:
				j := binary.BigEndian.Uint32(got[20:])
				if len(got) != 1300 || seen[j] {
					t.Fatalf("packet %d came twice", j)
				}
				seen[j] = true
				left--
			case <-timeout:
				t.Fatalf("%d packets were lost after change %d; drops: %v", left, i/each, b.Counters())
			}
		}
	}
	if slices.Contains(seen, false) {
		t.Error("packets are missing")
	}
}

// TestPathChangesLoseNothing moves one session among a relay, a direct path, a
// relay behind a stream, and a stream, both pinned and following.
func TestPathChangesLoseNothing(t *testing.T) {
	a, b, hub := trio(t)
	ka, kb, kh := a.key.Public(), b.key.Public(), hub.key.Public()
	relayA, relayB := Path{Via: kh, Label: labelA}, Path{Via: kh, Label: labelB}
	directA, directB := Path{To: b.at("127.0.0.1")}, Path{To: a.at("127.0.0.1")}
	up, down := newWires(t, a, hub)
	sa, sb := newWires(t, a, b)
	a.SetPath(kb, relayA, true)
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	first := a.status(kb).LastHandshake
	steps := []func(){
		func() { a.SetPath(kb, directA, true) },
		func() { b.SetPath(ka, directB, true) },
		func() { a.SetPath(kb, relayA, true) },
		func() { b.SetPath(ka, relayB, true) },
		func() { a.SetPath(kh, Path{Stream: up}, true); hub.SetPath(ka, Path{Stream: down}, true) },
		func() { a.SetPath(kb, Path{Stream: sa}, false) },
		func() { b.SetPath(ka, Path{Stream: sb}, false) },
		func() { a.SetPath(kh, Path{To: hub.at("127.0.0.1")}, false) },
		func() { hub.SetPath(ka, directB, true) },
		func() { a.SetPath(kb, directA, false) },
		func() { a.SetPath(kb, relayA, false) },
	}
	for _, way := range [][2]*node{{a, b}, {b, a}} {
		stream(t, way[0], way[1], 25*len(steps)*2, func(i int) { steps[i%len(steps)]() })
	}
	if got := a.status(kb).LastHandshake; !got.Equal(first) {
		t.Error("a change of the path cost a handshake")
	}
}

// TestHandshakeOverStream starts with nothing but streams: the edges behind
// them shake hands with the hub, and through it with each other.
func TestHandshakeOverStream(t *testing.T) {
	a, b, hub := newNode(t, "10.0.0.1"), newNode(t, "10.0.0.2"), newNode(t, "10.0.0.3")
	ka, kb, kh := a.key.Public(), b.key.Public(), hub.key.Public()
	mustPeers(t, a, b.peer(netip.AddrPort{}), hub.peer(netip.AddrPort{}))
	mustPeers(t, b, a.peer(netip.AddrPort{}), hub.peer(netip.AddrPort{}))
	mustPeers(t, hub, a.peer(netip.AddrPort{}), b.peer(netip.AddrPort{}))
	hub.SetLabels(map[Label]Forward{labelA: {ka, kb, labelB}, labelB: {kb, ka, labelA}})
	a.SetLabels(map[Label]Forward{labelA: {From: kh, To: kb}})
	b.SetLabels(map[Label]Forward{labelB: {From: kh, To: ka}})
	upA, _ := newWires(t, a, hub)
	upB, _ := newWires(t, b, hub)
	// The first message to b waits for the path of the hub, which relays.
	a.SetPath(kb, Path{Via: kh, Label: labelA}, true)
	send(a, packet(a.ip, b.ip, 100, 1))
	pb := a.table.get(kb)
	eventually(t, "no handshake is kept", func() bool {
		pb.mu.Lock()
		defer pb.mu.Unlock()
		return pb.kept.n > 0
	})
	b.SetPath(kh, Path{Stream: upB}, true)
	exchange(t, b, hub, 2)
	exchange(t, hub, b, 3)
	a.SetPath(kh, Path{Stream: upA}, true)
	pb.mu.Lock()
	if pb.kept.n > 0 || pb.pending.n == 0 {
		t.Error("the kept message did not go as soon as the hub had a path")
	}
	pb.mu.Unlock()
	exchange(t, a, hub, 4)
	exchange(t, a, b, 5)
	exchange(t, b, a, 6)
	if p, _, ok := hub.Path(kb); !ok || p.Stream == nil {
		t.Errorf("the hub's path to b is %+v, want the stream that b came by", p)
	}
	if s := a.status(kb); !s.Stream || s.Via != kh {
		t.Errorf("status %+v", s)
	}
	if got := hub.table.get(ka).DstToString(); got != "0.0.0.0:0" {
		t.Errorf("the user API shows %s", got)
	}
	p, _, _ := hub.Path(kb)
	hub.EndStream(p.Stream)
	if _, _, ok := hub.Path(kb); ok {
		t.Error("a path over a stream that has ended")
	}
	if _, _, ok := hub.Path(ka); !ok {
		t.Error("the end of one stream took away another's path")
	}
}

// TestPinned: packets from elsewhere are accepted, answered over the pinned path
// and told of, once a second.
func TestPinned(t *testing.T) {
	type told struct {
		k key.Public
		p Path
	}
	proven, wanted := make(chan told, 100), make(chan key.Public, 100)
	a, b, hub := trio(t, func(c *Config) {
		c.Proven = func(k key.Public, p Path) { proven <- told{k, p} }
		c.Wanted = func(k key.Public) { wanted <- k }
	})
	ka, kb := a.key.Public(), b.key.Public()
	a.SetPath(kb, Path{To: b.at("127.0.0.1")}, true)
	b.SetPath(ka, Path{Via: hub.key.Public(), Label: labelB}, true)
	for i := range uint32(20) {
		exchange(t, a, b, 2*i)
		exchange(t, b, a, 2*i+1)
	}
	if p, _, _ := a.Path(kb); p != (Path{To: b.at("127.0.0.1")}) {
		t.Errorf("a's pinned path moved to %+v", p)
	}
	if p, _, _ := b.Path(ka); p.Via != hub.key.Public() {
		t.Errorf("b's pinned path moved to %+v", p)
	}
	want := map[told]bool{{kb, Path{Via: hub.key.Public(), Label: labelA}}: true, {ka, Path{To: a.at("127.0.0.1"), Local: netip.MustParseAddr("127.0.0.1")}}: true}
	for range 2 {
		select {
		case got := <-proven:
			if !want[got] {
				t.Errorf("told of %+v", got)
			}
			delete(want, got)
		case <-time.After(patience):
			t.Fatalf("not told of %v", want)
		}
	}
	saw := map[key.Public]bool{}
	for len(wanted) > 0 {
		saw[<-wanted] = true
	}
	if !saw[ka] || !saw[kb] || !saw[hub.key.Public()] {
		t.Errorf("wanted: %v", saw)
	}
}

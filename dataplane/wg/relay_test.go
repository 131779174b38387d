package wg

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane/internal/udpbatch"
	"corax/dataplane/key"
)

// sink is a stream that keeps what is sent, up to room datagrams.
type sink struct {
	room int
	got  [][]byte
}

func (s *sink) Send(datagrams [][]byte) int {
	n := min(len(datagrams), s.room-len(s.got))
	for _, d := range datagrams[:n] {
		s.got = append(s.got, bytes.Clone(d))
	}
	return n
}

// crossroads is the reader of a hub with peers whose paths are set.
type crossroads struct {
	*receiver
	a, b, c, d, e *peer // direct, stream, direct, none, relayed
	out           *sink // b's stream
}

var (
	atA = netip.MustParseAddrPort("192.0.2.1:4500")
	atC = netip.MustParseAddrPort("192.0.2.3:4500")
)

func newCrossroads() *crossroads {
	bind := newTestBind()
	x := &crossroads{receiver: newReceiver(bind, nil, nil), out: &sink{room: 1000}}
	add := func(i byte) *peer { return bind.table.add(key.Public{i}) }
	x.a, x.b, x.c, x.d, x.e = add(1), add(2), add(3), add(4), add(5)
	bind.table.setPath(x.a, newPath(way{to: atA}, true, 0), nil)
	bind.table.setPath(x.b, newPath(way{stream: x.out}, true, 0), nil)
	bind.table.setPath(x.c, newPath(way{to: atC, socket: 7}, true, 0), nil)
	bind.table.setPath(x.e, newPath(way{via: x.a, label: 90}, true, 0), nil)
	bind.relays.set(map[Label]Forward{
		10:           {From: x.a.key, To: x.b.key, Out: 11},
		20:           {From: x.a.key, To: x.d.key, Out: 21},
		30:           {From: x.a.key, To: x.e.key, Out: 31},
		40:           {From: x.c.key, To: x.b.key, Out: 41},
		50:           {From: x.b.key, To: x.b.key, Out: 51}, // to itself: no label
		60:           {From: x.d.key, To: x.b.key, Out: 61},
		70:           {From: x.a.key, To: x.e.key}, // for us, from e behind a
		80:           {From: x.e.key, To: x.b.key, Out: 81},
		90:           {From: x.a.key, To: key.Public{99}, Out: 91}, // unknown peer
		maxLabel:     {From: x.a.key, To: x.b.key, Out: maxLabel},
		maxLabel + 1: {From: x.a.key, To: x.b.key, Out: 12},
	}, bind.table)
	return x
}

func frame(l Label, inner []byte) []byte {
	f := append(make([]byte, relayHeader), inner...)
	putLabel(f, l)
	return f
}

// feedFrame gives the reader one datagram, as from a socket or stream.
func (x *crossroads) feedFrame(w way, owner *peer, data []byte) ([]byte, conn.Endpoint) {
	x.begin()
	x.cur, x.owner, x.from = w, owner, w.to
	msg, ep := x.take(data)
	x.end()
	return msg, ep
}

func TestRelayFrames(t *testing.T) {
	good := message(100, 4)
	stun := message(28, 0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42)
	fromA := way{to: atA, local: netip.MustParseAddr("192.0.2.200")}
	fromC := way{to: atC, socket: 7}
	for _, c := range []struct {
		name  string
		from  way
		data  []byte
		out   Label // zero: not relayed
		why   drop  // when it is not
		owner *peer
	}{
		{"data", fromA, frame(10, good), 11, 0, nil},
		{"STUN", fromA, frame(10, stun), 11, 0, nil},
		{"initiation", fromA, frame(10, message(sizeInitiation, 1)), 11, 0, nil},
		{"keepalive", fromA, frame(10, message(sizeKeepalive, 4)), 11, 0, nil},
		{"largest label", fromA, frame(maxLabel, good), maxLabel, 0, nil},
		{"from an extra socket", fromC, frame(40, good), 41, 0, nil},
		{"unknown label", fromA, frame(12, good), 0, dropLabel, nil},
		{"label zero", fromA, frame(0, good), 0, dropLabel, nil},
		{"label of an unknown peer", fromA, frame(90, good), 0, dropLabel, nil},
		{"label to itself", way{stream: &sink{}}, frame(50, good), 0, dropLabel, nil},
		{"replayed from elsewhere", way{to: atC}, frame(10, good), 0, dropHop, nil},
		{"right address, other port", way{to: netip.MustParseAddrPort("192.0.2.1:4501")}, frame(10, good), 0, dropHop, nil},
		{"right address, wrong socket", way{to: atC}, frame(40, good), 0, dropHop, nil},
		{"from a stream, path is direct", way{stream: &sink{}}, frame(10, good), 0, dropHop, nil},
		{"previous hop has no path", way{to: atA}, frame(60, good), 0, dropHop, nil},
		{"previous hop is relayed", way{to: atA}, frame(80, good), 0, dropHop, nil},
		{"next hop has no path", fromA, frame(20, good), 0, dropNoHop, nil},
		{"next hop is relayed", fromA, frame(30, good), 0, dropNoHop, nil},
		{"neither WireGuard nor STUN", fromA, frame(10, []byte("hello, how are you?")), 0, dropContent, nil},
		{"empty", fromA, frame(10, nil), 0, dropContent, nil},
		{"a frame in a frame", fromA, frame(10, frame(10, good)), 0, dropContent, nil},
		{"seven bytes", fromA, frame(10, nil)[:7], 0, dropUnknown, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newCrossroads()
			sent := bytes.Clone(c.data)
			if _, ep := x.feedFrame(c.from, c.owner, c.data); ep != nil {
				t.Fatal("the frame was taken for ours")
			}
			if c.out == 0 {
				if len(x.out.got) != 0 || x.b0(c.why) != 1 {
					t.Errorf("relayed %d, %d dropped for %v", len(x.out.got), x.b0(c.why), c.why)
				}
				return
			}
			want := sent
			putLabel(want, c.out)
			if len(x.out.got) != 1 || !bytes.Equal(x.out.got[0], want) {
				t.Errorf("relayed %x, want %x", x.out.got, want)
			}
		})
	}
}

func (x *crossroads) b0(why drop) uint64 { return x.reader.b.drops.n[why].Load() }

// TestNoReflection: a frame does not go back to the address it came from, even
// when another peer is said to be there.
func TestNoReflection(t *testing.T) {
	x := newCrossroads()
	x.reader.b.table.setPath(x.b, newPath(way{to: atA}, true, 0), nil)
	x.feedFrame(way{to: atA}, nil, frame(10, message(100, 4)))
	if x.b0(dropReflect) != 1 {
		t.Error("reflected")
	}
	st := &sink{room: 10}
	for _, p := range []*peer{x.a, x.b} {
		x.reader.b.table.setPath(p, newPath(way{stream: st}, true, 0), nil)
	}
	x.feedFrame(way{stream: st}, x.a, frame(10, message(100, 4)))
	if x.b0(dropReflect) != 2 || len(st.got) != 0 {
		t.Error("reflected into the stream")
	}
}

// TestUnwrap: what is relayed to us is the origin's, and only the origin's.
func TestUnwrap(t *testing.T) {
	x := newCrossroads()
	var got []Datagram
	x.reader.b.other = func(d Datagram) { d.Data = bytes.Clone(d.Data); got = append(got, d) }
	x.reader.b.table.note(x.e, 7)
	x.reader.b.table.note(x.c, 8)
	x.reader.b.table.setPath(x.e, newPath(way{via: x.a, label: 70}, true, 0), nil)
	data := func(i byte) []byte { return message(100, 4, 0, 0, 0, i) }

	msg, ep := x.feedFrame(way{to: atA}, nil, frame(70, data(7)))
	if ep != conn.Endpoint(x.e) || !bytes.Equal(msg, data(7)) {
		t.Errorf("endpoint %v, %x", ep, msg)
	}
	if w := x.e.path.Load(); w.heard.Load() == 0 || x.e.received.Load() != 1 || x.a.heard.Load() != 0 {
		t.Error("what the origin sent was not noted, or as the hub's")
	}
	for range 2 { // the second answer is the kept one
		if _, ep := x.feedFrame(way{to: atA}, nil, frame(70, data(8))); ep != nil {
			t.Error("another peer's packet was taken from e's label")
		}
	}
	if _, ep := x.feedFrame(way{stream: x.out}, x.b, data(8)); ep != nil {
		t.Error("another peer's packet was taken from b's stream")
	}
	if x.b0(dropOrigin) != 3 {
		t.Errorf("%d counted", x.b0(dropOrigin))
	}

	// A path set elsewhere: the frame is a source, whose address is the origin's.
	x.reader.b.table.setPath(x.e, nil, nil)
	_, ep = x.feedFrame(way{to: atA}, nil, frame(70, data(7)))
	s, ok := ep.(*source)
	if !ok || s.DstIP() != x.e.key.Overlay() || s.DstToString() != "0.0.0.0:0" || s.via != x.a || s.label != 70 {
		t.Errorf("source %+v", ep)
	}
	if bytes.Equal(s.DstToBytes(), newSource(way{via: x.a, label: 70}, 0, x.c).DstToBytes()) {
		t.Error("two origins behind one hub look the same to the rate limiter")
	}

	stun := message(28, 0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42)
	x.feedFrame(way{to: atA}, nil, frame(70, stun))
	x.feedFrame(way{stream: x.out}, x.b, stun)
	x.feedFrame(way{to: atC, socket: 7}, nil, stun)
	want := []Datagram{
		{Kind: KindSTUN, From: atA, Peer: x.e.key, Via: x.a.key, Label: 70, Data: stun},
		{Kind: KindSTUN, Stream: x.out, Peer: x.b.key, Data: stun},
		{Kind: KindSTUN, From: atC, Socket: 7, Data: stun},
	}
	for i, w := range want {
		if i >= len(got) || !bytes.Equal(got[i].Data, w.Data) {
			t.Fatalf("%d datagrams arrived", len(got))
		}
		g := got[i]
		g.Data, w.Data = nil, nil
		if g.Kind != w.Kind || g.From != w.From || g.Socket != w.Socket || g.Stream != w.Stream || g.Peer != w.Peer || g.Via != w.Via || g.Label != w.Label {
			t.Errorf("got %+v, want %+v", g, w)
		}
	}
}

// TestRelayCounts: pairs are counted, and keep their counts when labels change.
func TestRelayCounts(t *testing.T) {
	x := newCrossroads()
	x.out.room = 5
	for range 2 {
		x.begin()
		for range 4 {
			x.cur, x.owner = way{to: atA}, nil
			x.take(frame(10, message(100, 4)))
		}
		x.end()
	}
	find := func() RelayStatus {
		for _, s := range x.reader.b.relays.status() {
			if s.From == x.a.key && s.To == x.b.key {
				return s
			}
		}
		return RelayStatus{}
	}
	want := RelayStatus{From: x.a.key, To: x.b.key, Packets: 5, Bytes: 5 * 108, Drops: 3}
	if got := find(); got != want || x.b0(dropRelayFull) != 3 {
		t.Errorf("%+v, want %+v", got, want)
	}
	x.reader.b.relays.set(map[Label]Forward{99: {From: x.a.key, To: x.b.key, Out: 98}}, x.reader.b.table)
	if got := find(); got != want {
		t.Errorf("after new labels %+v, want %+v", got, want)
	}
	x.reader.b.relays.set(nil, x.reader.b.table)
	if got := find(); got != (RelayStatus{}) {
		t.Errorf("a pair without label: %+v", got)
	}
	for _, c := range x.reader.b.relays.counters() {
		if c.Name == "wg_relay_packets_total" && c.Value != 5 {
			t.Errorf("total %d", c.Value)
		}
	}
}

// FuzzReader: whatever arrives from whom, only what the labels say is relayed, to
// where they say, and it changes by the label alone.
func FuzzReader(f *testing.F) {
	for _, l := range []Label{10, 20, 30, 40, 70, maxLabel} {
		f.Add(frame(l, message(100, 4)), uint8(0))
		f.Add(frame(l, message(28, 0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42)), uint8(1))
	}
	f.Add(frame(10, frame(10, message(100, 4))), uint8(0))
	f.Add([]byte{relayByte}, uint8(2))
	f.Add(message(148, 1), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, from uint8) {
		x := newCrossroads()
		x.reader.b.other = func(d Datagram) {
			if d.Kind != KindSTUN {
				t.Errorf("kind %v", d.Kind)
			}
		}
		ways := []struct {
			w     way
			owner *peer
			may   map[Label]Label // what may be relayed, to what
		}{
			{way{to: atA}, nil, map[Label]Label{10: 11, maxLabel: maxLabel}},
			{way{to: atC, socket: 7}, nil, map[Label]Label{40: 41}},
			{way{to: atC}, nil, nil},
			{way{stream: x.out}, x.b, nil},
		}
		c := ways[int(from)%len(ways)]
		before := bytes.Clone(data)
		x.feedFrame(c.w, c.owner, data)
		ok := false
		if Classify(before) == KindRelay {
			kind := Classify(before[relayHeader:])
			_, ok = c.may[frameLabel(before)]
			ok = ok && kind != KindUnknown && kind != KindRelay
		}
		if ok != (len(x.out.got) == 1) || x.reader.out.n != 0 {
			t.Fatalf("relayed %d frames, want %v", len(x.out.got), ok)
		}
		if ok {
			putLabel(before, c.may[frameLabel(before)])
			if !bytes.Equal(before, x.out.got[0]) {
				t.Error("more than the label changed")
			}
		}
	})
}

// relayBatch returns a hub's receiver, whose other peers are reached at to, and
// a batch of frames of pairs in turn, in runs.
func relayBatch(b *bind, to netip.AddrPort, pairs, frames, run int) (*receiver, []*udpbatch.Datagram) {
	labels := make(map[Label]Forward)
	var grams []*udpbatch.Datagram
	for i := range pairs {
		src, dst := b.table.add(key.Public{1, byte(i), byte(i >> 8)}), b.table.add(key.Public{2, byte(i), byte(i >> 8)})
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 4500)
		b.table.setPath(src, newPath(way{to: from}, true, 0), nil)
		b.table.setPath(dst, newPath(way{to: to}, true, 0), nil)
		labels[Label(i+1)] = Forward{From: src.key, To: dst.key, Out: Label(i + 1)} // the same: a frame can be used again
	}
	b.relays.set(labels, b.table)
	for i := range frames {
		n := i / run % pairs
		grams = append(grams, &udpbatch.Datagram{
			Data: frame(Label(n+1), message(1452, 4)),
			From: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 4500),
		})
	}
	return newReceiver(b, nil, nil), grams
}

func relayAll(r *receiver, grams []*udpbatch.Datagram) {
	r.begin()
	for _, g := range grams {
		r.direct(g.Data, g.From, g.Local, 0)
	}
	r.end()
}

func TestRelayAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	n := newNode(t, "10.0.0.1")
	for _, pairs := range []int{1, 20} {
		r, grams := relayBatch(n.bind, localAddr(rawSocket(t)), pairs, batchSize, 4)
		once := func() { relayAll(r, grams) }
		once()
		// So many that the buffers of a device which is still starting do not count.
		if got := testing.AllocsPerRun(2000, once); got != 0 {
			t.Errorf("%d pairs: %v allocations", pairs, got)
		}
		if n.drop(dropRelayFull)+n.drop(dropHop)+n.drop(dropLabel) != 0 {
			t.Errorf("drops: %v", n.Counters())
		}
	}
}

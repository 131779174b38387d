package wg

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

func TestExtraSockets(t *testing.T) {
	got := make(chan Datagram, 16)
	a, b := newNode(t, "10.0.0.1", func(c *Config) {
		c.Other = func(d Datagram) { d.Data = bytes.Clone(d.Data); got <- d }
	}), newNode(t, "10.0.0.2")
	mustPeers(t, a, b.peer(netip.AddrPort{}))
	mustPeers(t, b, a.peer(netip.AddrPort{}))
	ids, err := a.OpenSockets(200, false)
	if err != nil || len(ids) != 200 || slices.Contains(ids, 0) {
		t.Fatalf("%d sockets, %v", len(ids), err)
	}
	if _, err := a.OpenSockets(100, false); err == nil {
		t.Error("more than 256 sockets")
	}
	open := *a.bind.extras.open.Load()
	port := func(s Socket) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), open[s].sock.LocalAddr().Port())
	}

	// Probes go out of each, and come in at each.
	c := rawSocket(t)
	stun := message(28, 0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42)
	for _, s := range []Socket{ids[0], ids[77], ids[199]} {
		if failed := a.SendRaw([]Raw{{Path: Path{To: localAddr(c), Socket: s}, Data: stun, TTL: 7, DF: true}}); failed != nil {
			t.Fatalf("%+v", failed)
		}
		buf := make([]byte, 100)
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil || !bytes.Equal(buf[:n], stun) || unmap(from) != port(s) {
			t.Fatalf("read %x from %v, %v", buf[:n], from, err)
		}
		if _, err := c.WriteToUDPAddrPort(stun, port(s)); err != nil {
			t.Fatal(err)
		}
		select {
		case d := <-got:
			if d.Socket != s || d.From != localAddr(c) || d.Kind != KindSTUN {
				t.Errorf("got %+v", d)
			}
		case <-time.After(patience):
			t.Fatal("nothing arrived")
		}
	}

	// One is kept as the path of a peer, which follows it.
	keep := ids[77]
	a.CloseSockets(keep)
	if n := len(*a.bind.extras.open.Load()); n != 1 {
		t.Errorf("%d sockets are open", n)
	}
	a.SetPath(b.key.Public(), Path{To: b.at("127.0.0.1"), Socket: keep}, true)
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	if p, _, _ := b.Path(a.key.Public()); p.To != port(keep) {
		t.Errorf("b reaches a at %v, want %v", p.To, port(keep))
	}
	stream(t, b, a, 2000, func(int) {})
	stream(t, a, b, 500, func(int) {})
	big := append(stun, make([]byte, 12000)...) // too much for one of many
	if _, err := c.WriteToUDPAddrPort(big, port(keep)); err != nil {
		t.Fatal(err)
	}
	select {
	case d := <-got:
		if !bytes.Equal(d.Data, big) {
			t.Errorf("%d bytes arrived, want %d", len(d.Data), len(big))
		}
	case <-time.After(patience):
		t.Error("the socket that was kept is still a small one")
	}
	if _, heard, ok := a.Path(b.key.Public()); !ok || heard.IsZero() {
		t.Error("nothing was heard over the path")
	}

	a.CloseSockets()
	before := a.drop(dropSocket)
	send(a, packet(a.ip, b.ip, 100, 9))
	eventually(t, "a closed socket is not counted", func() bool { return a.drop(dropSocket) > before })
	if failed := a.SendRaw([]Raw{{Path: Path{To: localAddr(c), Socket: keep}, Data: stun}}); len(failed) != 1 {
		t.Error("sent from a closed socket")
	}
	// Unpinned, b comes back over the tunnel socket.
	a.SetPath(b.key.Public(), Path{To: b.at("127.0.0.1")}, false)
	exchange(t, a, b, 10)
	exchange(t, b, a, 11)
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.OpenSockets(1, false); err == nil {
		t.Error("a stopped device opens sockets")
	}
}

// TestFollowsToSocket: a path that is not pinned follows the peer to the socket
// at which it arrives.
func TestFollowsToSocket(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	ids, err := a.OpenSockets(2, false)
	if err != nil {
		t.Fatal(err)
	}
	sock := (*a.bind.extras.open.Load())[ids[1]].sock
	b.SetPath(a.key.Public(), Path{To: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), sock.LocalAddr().Port())}, true)
	exchange(t, b, a, 2)
	exchange(t, a, b, 3)
	if p, _, _ := a.Path(b.key.Public()); p.Socket != ids[1] || p.To != b.at("127.0.0.1") {
		t.Errorf("path %+v, want socket %d", p, ids[1])
	}
	if s := b.status(a.key.Public()); s.LastHandshake.IsZero() {
		t.Error("no handshake")
	}
}

func TestSendRaw(t *testing.T) {
	got := make(chan Datagram, 4)
	a, b, hub := trio(t, func(c *Config) {
		c.Other = func(d Datagram) { d.Data = bytes.Clone(d.Data); got <- d }
	})
	stun := message(28, 0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42)
	up, _ := newWires(t, a, b)
	for _, p := range []Path{
		{To: b.at("127.0.0.1")}, {Via: hub.key.Public(), Label: labelA}, {Stream: up},
	} {
		if failed := a.SendRaw([]Raw{{Path: p, Data: stun, DF: true}}); failed != nil {
			t.Fatalf("%+v: %+v", p, failed)
		}
		select {
		case d := <-got:
			if !bytes.Equal(d.Data, stun) || (d.Peer == a.key.Public()) != (p.To == netip.AddrPort{}) ||
				(d.Via == hub.key.Public()) != (p.Label != 0) || (d.Stream != nil) != (p.Stream != nil) {
				t.Errorf("%+v: got %+v", p, d)
			}
		case <-time.After(patience):
			t.Fatalf("%+v: nothing arrived", p)
		}
	}
	// The hub is behind a stream: the frame goes there.
	out := &sink{room: 1}
	a.SetPath(hub.key.Public(), Path{Stream: out}, true)
	batch := []Raw{
		{Path: Path{Via: hub.key.Public(), Label: labelA}, Data: stun},
		{Path: Path{Via: hub.key.Public(), Label: labelA}, Data: stun}, // full
		{Path: Path{}, Data: stun},
		{Path: Path{To: b.at("127.0.0.1"), Stream: out}, Data: stun},
		{Path: Path{Via: hub.key.Public()}, Data: stun},
		{Path: Path{Via: hub.key.Public(), Label: maxLabel + 1}, Data: stun},
		{Path: Path{To: b.at("127.0.0.1"), Socket: 99}, Data: stun},
		{Path: Path{To: b.at("127.0.0.1")}, Data: make([]byte, 1<<16)},
	}
	failed := a.SendRaw(batch)
	if len(failed) != len(batch)-1 || failed[0].Index != 1 || !errors.Is(failed[len(failed)-1].Err, syscall.EMSGSIZE) {
		t.Errorf("failed: %+v", failed)
	}
	if len(out.got) != 1 || !bytes.Equal(out.got[0], frame(labelA, stun)) {
		t.Errorf("stream took %x", out.got)
	}
}

// TestSetPathRefuses: paths that lead nowhere change nothing.
func TestSetPathRefuses(t *testing.T) {
	a, b, hub := trio(t)
	kb, kh := b.key.Public(), hub.key.Public()
	good := Path{Via: kh, Label: labelA}
	a.SetPath(kb, good, true)
	for _, bad := range []Path{
		{Via: kh},
		{Via: kb, Label: 1},
		{Via: newKey(t).Public(), Label: 1},
		{Via: kh, Label: maxLabel + 1},
		{Label: 5},
		{Socket: 5},
		{Via: kh, Label: 5, Stream: &sink{}},
		{To: b.at("127.0.0.1"), Via: kh, Label: 5},
		{Local: a.ip},
	} {
		a.SetPath(kb, bad, true)
		if p, _, ok := a.Path(kb); !ok || p != good {
			t.Errorf("%+v made the path %+v", bad, p)
		}
	}
	a.SetPath(kb, Path{}, false)
	if p, _, ok := a.Path(kb); ok || a.status(kb).Via == kh {
		t.Errorf("path %+v was not taken away", p)
	}
}

// TestFeed: the queue is bounded, in all and for each origin, and in order.
func TestFeed(t *testing.T) {
	b := newTestBind()
	f := b.feed
	p := &peer{}
	held := make([]int, 6)
	for i := range feedShare + 10 {
		f.put(message(100, 4, byte(i), byte(i>>8)), p, &held[0])
	}
	if f.n != feedShare || b.drops.n[dropFeed].Load() != 10 {
		t.Errorf("%d wait, %d dropped", f.n, b.drops.n[dropFeed].Load())
	}
	f.put(message(feedMax+1, 4), p, &held[1])
	if held[1] != 0 || b.drops.n[dropTooBig].Load() != 1 {
		t.Error("a message too large waits")
	}
	for i := range held[1:] {
		for range feedShare {
			f.put(message(100, 4), p, &held[i+1])
		}
	}
	if f.n != feedSize {
		t.Errorf("%d wait, want %d", f.n, feedSize)
	}
	bufs, sizes := newOffer(batchSize)
	eps := make([]conn.Endpoint, batchSize)
	receive := f.receiver(make(chan struct{}))
	for n := 0; n < feedSize; {
		b.in.n.Store(0)
		got, err := receive(bufs, sizes, eps)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if n < feedShare && (bufs[i][1] != byte(n) || bufs[i][2] != byte(n>>8)) || sizes[i] != 100 || eps[i] != conn.Endpoint(p) {
				t.Fatalf("message %d is %x", n, bufs[i][:4])
			}
			n++
		}
	}
	for i, n := range held {
		if n != 0 {
			t.Errorf("%d messages of origin %d still count", n, i)
		}
	}
	if raceEnabled {
		return
	}
	msg := message(1452, 4)
	once := func() {
		b.in.n.Store(0)
		f.put(msg, p, &held[0])
		_, _ = receive(bufs, sizes, eps)
	}
	for range feedSize { // every slot has its memory
		once()
	}
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBusy: handshake messages that wireguard-go leaves in their buffers were
// dropped.
func TestBusy(t *testing.T) {
	d := new(drops)
	var h handed
	bufs, _ := newOffer(4)
	h.add(1, bufs[1])
	h.add(3, bufs[3])
	bufs[1] = make([]byte, 10) // taken out
	h.check(bufs, d)
	h.check(bufs, d)
	if got := d.n[dropBusy].Load(); got != 1 {
		t.Errorf("%d dropped, want 1", got)
	}
}

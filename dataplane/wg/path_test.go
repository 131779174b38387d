package wg

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"corax/dataplane"
)

// reopen gives n another port, as an operator's `wg set listen-port` does.
func reopen(t *testing.T, n *node) {
	t.Helper()
	old := n.Port()
	if err := n.dev.Load().IpcSet("listen_port=0\n"); err != nil {
		t.Fatal(err)
	}
	if n.Port() == old {
		t.Skip("the kernel chose the same port again")
	}
}

func TestRoaming(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	first := a.status(b.key.Public())

	reopen(t, b)
	exchange(t, b, a, 3)
	exchange(t, a, b, 4)
	s := a.status(b.key.Public())
	if want := b.at("127.0.0.1"); s.Endpoint != want {
		t.Errorf("path %v, want %v", s.Endpoint, want)
	}
	if s.LastHandshake != first.LastHandshake {
		t.Error("a new handshake, although only the port changed")
	}
	if s.Proven.IsZero() {
		t.Error("the new path is not proven")
	}
}

// TestRoamingSeenByStatus: the peer moves and nothing is sent to it since.
func TestRoamingSeenByStatus(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	a.status(b.key.Public())
	reopen(t, b)
	exchange(t, b, a, 3)
	s := a.status(b.key.Public())
	if want := b.at("127.0.0.1"); s.Endpoint != want {
		t.Errorf("path %v, want %v", s.Endpoint, want)
	}
}

// rawSocket is a UDP socket of somebody else.
func rawSocket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func localAddr(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// TestSpoofed sends forged data with valid receiver indices from elsewhere: the
// path stays.
func TestSpoofed(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	pb := a.table.get(b.key.Public())
	a.table.mu.RLock()
	indices := append([]uint32(nil), pb.indices.at[:pb.indices.n]...)
	a.table.mu.RUnlock()
	thief := rawSocket(t)
	for i := range 300 {
		m := message(sizeDataHeader+64, 4)
		x := indices[i%len(indices)]
		m[4], m[5], m[6], m[7] = byte(x), byte(x>>8), byte(x>>16), byte(x>>24)
		m[8] = byte(i)
		if _, err := thief.WriteToUDPAddrPort(m, a.at("127.0.0.1")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the forged packets did not arrive", func() bool {
		s := pb.spare.Load()
		return s != nil && s.to == localAddr(thief)
	})
	exchange(t, b, a, 3)
	exchange(t, a, b, 4)
	if s := a.status(b.key.Public()); s.Endpoint != b.at("127.0.0.1") {
		t.Errorf("path %v, want %v", s.Endpoint, b.at("127.0.0.1"))
	}
}

func TestGarbage(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	stranger := rawSocket(t)
	stun := message(20, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42)
	unknownKey := initiation(t, newKey(t), a.key.Public(), 5)
	broken := initiation(t, b.key, a.key.Public(), 6)
	broken[endStatic-1] ^= 1
	addMAC1(broken, a.key.Public())
	const each = 50
	for _, m := range [][]byte{
		message(1, 4), message(500, 9), message(148, 1), message(92, 2), message(64, 3), message(400, 4),
		stun, message(30, 0xC5), unknownKey, broken,
	} {
		for range each {
			if _, err := stranger.WriteToUDPAddrPort(m, a.at("127.0.0.1")); err != nil {
				t.Fatal(err)
			}
		}
		exchange(t, b, a, 7) // the others do not notice
	}
	for why, want := range map[drop]uint64{
		dropUnknown: 2 * each, dropMAC1: each, dropIndex: 3 * each, dropNoReceiver: each, dropLabel: each,
		dropPeer: each, dropInitiation: each,
	} {
		eventually(t, fmt.Sprintf("drops for %v: %d, want %d", why, a.drop(why), want), func() bool { return a.drop(why) == want })
	}
	exchange(t, a, b, 8)
}

func TestOther(t *testing.T) {
	got := make(chan Datagram, 4)
	a := newNode(t, "10.0.0.1", func(c *Config) {
		c.Other = func(d Datagram) {
			d.Data = append([]byte(nil), d.Data...)
			got <- d
		}
	})
	c := rawSocket(t)
	for _, want := range []struct {
		kind Kind
		b    []byte
	}{
		{KindSTUN, message(28, 0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42)},
		{KindSTUN, message(60, 1, 1, 0, 40, 0x21, 0x12, 0xA4, 0x42)},
	} {
		if _, err := c.WriteToUDPAddrPort(want.b, a.at("127.0.0.1")); err != nil {
			t.Fatal(err)
		}
		select {
		case d := <-got:
			if d.Kind != want.kind || d.From != localAddr(c) || string(d.Data) != string(want.b) ||
				d.Local != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("got %+v", d)
			}
		case <-time.After(patience):
			t.Fatalf("%v did not arrive", want.kind)
		}
	}
}

// TestKeptHandshake: traffic before anybody knows where the peer is. As soon as
// there is a path the handshake goes, and the packet after it.
func TestKeptHandshake(t *testing.T) {
	a, b := newNode(t, "10.0.0.1"), newNode(t, "10.0.0.2")
	mustPeers(t, a, b.peer(netip.AddrPort{}))
	mustPeers(t, b, a.peer(netip.AddrPort{}))
	want := packet(a.ip, b.ip, 100, 1)
	send(a, packet(a.ip, b.ip, 100, 1))
	pb := a.table.get(b.key.Public())
	eventually(t, "no handshake is kept", func() bool {
		pb.mu.Lock()
		defer pb.mu.Unlock()
		return pb.kept.n == sizeInitiation
	})
	a.SetPath(b.key.Public(), Path{To: b.at("127.0.0.1")}, false)
	expect(t, b, want)
	if s := a.status(b.key.Public()); s.Endpoint != b.at("127.0.0.1") {
		t.Errorf("path %v", s.Endpoint)
	}
}

// TestManyWaiting: without path and session most packets are dropped at once,
// and Send does not block.
func TestManyWaiting(t *testing.T) {
	a, b := newNode(t, "10.0.0.1"), newNode(t, "10.0.0.2")
	mustPeers(t, a, b.peer(netip.AddrPort{}))
	const total = 5000
	for range total / 50 {
		var batch []dataplane.Packet
		for i := range uint32(50) {
			batch = append(batch, dataplane.Packet{Data: packet(a.ip, b.ip, 100, i)})
		}
		a.Send(batch)
	}
	if got := a.drop(dropNoSession); got < total-maxStaged-10 || got > total-maxStaged {
		t.Errorf("%d of %d dropped, want all but about %d", got, total, maxStaged)
	}
}

// TestStream: faster than the device encrypts, Send holds the caller back and
// drops nothing, however slow the machine.
func TestStream(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	p := a.table.get(b.key.Public())
	before := p.sent.Load()
	const total = 10_000
	for range total / 100 {
		var batch []dataplane.Packet
		for i := range uint32(100) {
			batch = append(batch, dataplane.Packet{Data: packet(a.ip, b.ip, 1408, i)})
		}
		a.Send(batch)
	}
	eventually(t, "not every packet was sent", func() bool { return p.sent.Load()-before >= total })
	if got := a.drop(dropNoSession); got != 0 {
		t.Errorf("%d dropped", got)
	}
	exchange(t, b, a, 2)
}

func TestSetPathKeepsSession(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	before := a.status(b.key.Public())
	a.SetPath(b.key.Public(), Path{To: b.at("127.0.0.2")}, false)
	if s := a.status(b.key.Public()); s.Endpoint != b.at("127.0.0.2") || !s.Proven.IsZero() {
		t.Errorf("status after SetPath: %+v", s)
	}
	exchange(t, a, b, 2)
	exchange(t, b, a, 3)
	exchange(t, a, b, 4)
	s := a.status(b.key.Public())
	if s.LastHandshake != before.LastHandshake {
		t.Error("a new handshake for a new path")
	}
	// b was reached at 127.0.0.2, and so answers from there.
	if s.Endpoint != b.at("127.0.0.2") || s.Proven.IsZero() {
		t.Errorf("status %+v", s)
	}
	for _, bad := range []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("0.0.0.0:5")} {
		a.SetPath(b.key.Public(), Path{To: bad}, false)
	}
	if got := a.status(b.key.Public()).Endpoint; got != b.at("127.0.0.2") {
		t.Errorf("path %v after useless addresses", got)
	}
}

// TestNewKeySameAddress: another key answers at the address of a known peer.
func TestNewKeySameAddress(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	port := b.Port()
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	c := newNode(t, "10.0.0.3", func(cfg *Config) { cfg.Port = port })
	mustPeers(t, a, b.peer(b.at("127.0.0.1")), c.peer(netip.AddrPort{}))
	mustPeers(t, c, a.peer(a.at("127.0.0.1")))
	exchange(t, c, a, 3)
	exchange(t, a, c, 4)
	if got := a.status(c.key.Public()).Endpoint; got != c.at("127.0.0.1") {
		t.Errorf("path of the new key: %v", got)
	}
	// What now happens to the old key's path does not touch the new key's.
	a.SetPath(b.key.Public(), Path{To: netip.MustParseAddrPort("127.0.0.1:9")}, false)
	exchange(t, a, c, 5)
	exchange(t, c, a, 6)
}

// TestUnopenedInitiation: beyond the rate wireguard-go opens initiations, and
// the response tells whose it was.
func TestUnopenedInitiation(t *testing.T) {
	a, b := newNode(t, "10.0.0.1"), newNode(t, "10.0.0.2")
	b.bind.limiter.SetBurst(0)
	b.bind.limiter.SetLimit(rate.Limit(0))
	mustPeers(t, b, a.peer(netip.AddrPort{}))
	mustPeers(t, a, b.peer(b.at("127.0.0.1")))
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	pa := b.table.get(a.key.Public())
	if w := pa.path.Load(); w == nil || w.to != a.at("127.0.0.1") {
		t.Error("the path was not learned")
	}
}

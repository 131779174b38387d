package wg

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

// TestUnrelatedUpdate: a change of other peers leaves a learned path and its
// session alone.
func TestUnrelatedUpdate(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	before := b.status(a.key.Public())
	path := b.table.get(a.key.Public()).path.Load()

	other := dataplane.Peer{PublicKey: newKey(t).Public(), AllowedIPs: prefixes("10.9.0.0/16")}
	mustPeers(t, b, a.peer(netip.AddrPort{}), other)
	other.Endpoint = netip.MustParseAddrPort("127.0.0.1:9")
	renamed := a.peer(netip.AddrPort{})
	renamed.Node, renamed.Hub = "renamed", true
	mustPeers(t, b, renamed, other)
	mustPeers(t, b, renamed)

	exchange(t, b, a, 3)
	exchange(t, a, b, 4)
	after := b.status(a.key.Public())
	if after.Endpoint != before.Endpoint || after.LastHandshake != before.LastHandshake {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if b.table.get(a.key.Public()).path.Load() != path {
		t.Error("the path object was replaced")
	}
}

// TestEndpointChange: an endpoint in the config counts when it changes, and a
// learned one is not overwritten by the same old value.
func TestEndpointChange(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	exchange(t, b, a, 2)
	old := b.at("127.0.0.1")
	reopen(t, b)
	exchange(t, b, a, 3)
	exchange(t, a, b, 4)
	other := dataplane.Peer{PublicKey: newKey(t).Public()}
	mustPeers(t, a, b.peer(old), other)
	if got := a.status(b.key.Public()).Endpoint; got != b.at("127.0.0.1") {
		t.Errorf("path %v: the old endpoint came back", got)
	}
	mustPeers(t, a, b.peer(b.at("127.0.0.2")), other)
	if got := a.status(b.key.Public()).Endpoint; got != b.at("127.0.0.2") {
		t.Errorf("path %v: the new endpoint does not count", got)
	}
	exchange(t, a, b, 5)
}

// TestSubnetMoves: a subnet goes from one peer to another, and back.
func TestSubnetMoves(t *testing.T) {
	a := newNode(t, "10.0.0.1")
	b, c := newNode(t, "10.0.0.2"), newNode(t, "10.0.0.3")
	for _, n := range []*node{b, c} {
		mustPeers(t, n, a.peer(netip.AddrPort{}))
	}
	moving := netip.MustParseAddr("10.7.0.1")
	at := func(owner *node) []dataplane.Peer {
		pb, pc := b.peer(b.at("127.0.0.1")), c.peer(c.at("127.0.0.1"))
		for _, p := range []*dataplane.Peer{&pb, &pc} {
			if p.PublicKey == owner.key.Public() {
				p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix("10.7.0.0/16"))
			}
		}
		return []dataplane.Peer{pb, pc}
	}
	for mark, owner := range []*node{b, c, b} {
		mustPeers(t, a, at(owner)...)
		want := packet(a.ip, moving, 100, uint32(mark))
		send(a, slices.Clone(want))
		expect(t, owner, want)
		back := packet(moving, a.ip, 100, uint32(mark))
		send(owner, slices.Clone(back))
		expect(t, a, back)
	}
	// c has lost it: what it sends from there is refused, and counted.
	before := a.drop(dropSource)
	send(c, packet(moving, a.ip, 100, 77))
	eventually(t, "a foreign source is not counted", func() bool { return a.drop(dropSource) == before+1 })
	eventually(t, "a dropped packet counts as in flight", func() bool { return a.bind.in.n.Load() == 0 })

	// Nobody has it, then the peer itself is gone.
	mustPeers(t, a, b.peer(netip.AddrPort{}), c.peer(netip.AddrPort{}))
	send(a, packet(a.ip, moving, 100, 0))
	mustPeers(t, a, b.peer(netip.AddrPort{}))
	send(a, packet(a.ip, c.ip, 100, 0))
	if got := a.drop(dropNoPeer); got != 2 {
		t.Errorf("%d packets without peer, want 2", got)
	}
	if st := a.Status(); len(st) != 1 || st[0].PublicKey != b.key.Public() {
		t.Errorf("status %+v", st)
	}
	exchange(t, a, b, 9)
}

// TestPreshared: with different pre-shared keys no handshake completes; after a
// correction the packet that waits goes out with wireguard-go's next try.
func TestPreshared(t *testing.T) {
	t.Parallel() // waits for that try, five seconds
	a, b := newNode(t, "10.0.0.1"), newNode(t, "10.0.0.2")
	with := func(p dataplane.Peer, secret string) dataplane.Peer {
		p.Preshared = key.PresharedFromSecret([]byte(secret))
		return p
	}
	mustPeers(t, a, with(b.peer(b.at("127.0.0.1")), "one"))
	mustPeers(t, b, with(a.peer(netip.AddrPort{}), "two"))
	want := packet(a.ip, b.ip, 100, 1)
	send(a, slices.Clone(want))
	eventually(t, "the response was not refused", func() bool { return a.drop(dropResponse) == 1 })
	if s := a.status(b.key.Public()); !s.LastHandshake.IsZero() {
		t.Error("a handshake completed with different pre-shared keys")
	}
	mustPeers(t, a, with(b.peer(b.at("127.0.0.1")), "two"))
	expect(t, b, want)
	exchange(t, b, a, 2)

	psk := key.PresharedFromSecret([]byte("two")).Bytes()
	for _, n := range []*node{a, b} {
		checkSecrets(t, n.logs.String(), n.key, psk[:])
	}
}

// TestHandshake: asked for, without any traffic.
func TestHandshake(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	if a.Handshake(newKey(t).Public()) {
		t.Error("a handshake with nobody")
	}
	if !a.Handshake(b.key.Public()) {
		t.Error("no handshake was started")
	}
	eventually(t, "no handshake", func() bool { return !a.status(b.key.Public()).LastHandshake.IsZero() })
	if a.Handshake(b.key.Public()) {
		t.Error("a second handshake at once")
	}
}

// TestNoUncalledHandshake: the keepalive of one peer starts no handshake with
// the next.
func TestNoUncalledHandshake(t *testing.T) {
	a, b, c := newNode(t, "10.0.0.1"), newNode(t, "10.0.0.2"), newNode(t, "10.0.0.3")
	for _, n := range []*node{b, c} {
		mustPeers(t, n, a.peer(netip.AddrPort{}))
	}
	first := b.peer(b.at("127.0.0.1"))
	first.Keepalive = 25 * time.Second
	mustPeers(t, a, first, c.peer(c.at("127.0.0.1")))
	eventually(t, "no handshake", func() bool { return !a.status(b.key.Public()).LastHandshake.IsZero() })
	if n := a.table.get(c.key.Public()).initiations.Load(); n != 0 {
		t.Errorf("%d initiations to a peer that nobody talks to", n)
	}
}

// TestPeersBeforeRun: what is set before Run is there after it.
func TestPeersBeforeRun(t *testing.T) {
	b := newNode(t, "10.0.0.2")
	a, err := New(Config{PrivateKey: newKey(t), MTU: dataplane.DefaultMTU, Receive: dataplane.SenderFunc(func([]dataplane.Packet) {})})
	if err != nil {
		t.Fatal(err)
	}
	a.Handshake(b.key.Public())
	a.Send([]dataplane.Packet{{Data: packet(inner1, b.ip, 100, 0)}})
	if err := a.SetPeers([]dataplane.Peer{b.peer(b.at("127.0.0.1")), {Node: "bad"}}); err == nil || !strings.Contains(err.Error(), "wg: set peers") {
		t.Errorf("error %v", err)
	}
	if st := a.Status(); len(st) != 1 || st[0].Endpoint != b.at("127.0.0.1") {
		t.Errorf("status before Run: %+v", st)
	}
	run(t, a)
	mustPeers(t, b, dataplane.Peer{PublicKey: a.self, AllowedIPs: prefixes("10.0.0.1/32")})
	eventually(t, "device does not come up", func() bool { return a.link.open.Load() })
	want := packet(inner1, b.ip, 100, 3)
	eventually(t, "the packet does not arrive", func() bool {
		a.Send([]dataplane.Packet{{Data: slices.Clone(want)}})
		select {
		case got := <-b.got:
			return slices.Equal(got, want)
		default:
			return false
		}
	})
	if n := a.drops.n[dropStopped].Load(); n != 1 {
		t.Errorf("%d packets dropped before Run, want 1", n)
	}
}

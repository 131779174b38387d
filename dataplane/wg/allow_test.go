package wg

import (
	"bytes"
	"net/netip"
	"testing"

	"corax/dataplane"
	"corax/dataplane/internal/udpbatch"
)

func allowing(prefixes ...string) *dataplane.AllowTable {
	a := new(dataplane.Allow)
	for _, p := range prefixes {
		a.Sources = append(a.Sources, netip.MustParsePrefix(p))
	}
	return a.Table()
}

// TestAllow shuts a peer out of a running device and lets it in again.
func TestAllow(t *testing.T) {
	got := make(chan Datagram, 16)
	a := newNode(t, "10.0.0.1", func(c *Config) { c.Other = func(d Datagram) { d.Data = bytes.Clone(d.Data); got <- d } })
	b := newNode(t, "10.0.0.2")
	mustPeers(t, a, b.peer(netip.AddrPort{}))
	mustPeers(t, b, a.peer(a.at("127.0.0.1")))
	exchange(t, b, a, 1)

	a.SetAllow(allowing("203.0.113.0/24"))
	c := rawSocket(t)
	stun := message(28, 0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42)
	for name, msg := range map[string][]byte{
		"STUN": stun, "a relay frame": append(message(8, relayByte), stun...), "an initiation": message(sizeInitiation, 1),
		"data": message(64, 4), "noise": message(40, 99),
	} {
		before := a.drop(dropNotAllowed)
		if _, err := c.WriteToUDPAddrPort(msg, a.at("127.0.0.1")); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" of a source outside the list is not dropped", func() bool { return a.drop(dropNotAllowed) > before })
	}
	for _, why := range []drop{dropUnknown, dropMAC1, dropIndex, dropLabel} {
		if n := a.drop(why); n != 0 {
			t.Errorf("%d were looked at: %v", n, why)
		}
	}
	before := a.drop(dropNotAllowed)
	send(b, packet(b.ip, a.ip, 100, 2))
	eventually(t, "the session of a peer outside the list goes on", func() bool { return a.drop(dropNotAllowed) > before })
	send(a, packet(a.ip, b.ip, 100, 3))
	eventually(t, "a peer outside the list is sent to", func() bool { return a.drop(dropDestination) > 0 })
	if failed := a.SendRaw([]Raw{{Path: Path{To: localAddr(c)}, Data: stun}}); len(failed) != 1 {
		t.Error("a probe goes to an address outside the list")
	}
	select {
	case d := <-got:
		t.Errorf("got %+v", d)
	default:
	}

	a.SetAllow(allowing("203.0.113.0/24", "127.0.0.0/8"))
	exchange(t, b, a, 4)
	exchange(t, a, b, 5)
	if _, err := c.WriteToUDPAddrPort(stun, a.at("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if d := <-got; !bytes.Equal(d.Data, stun) {
		t.Errorf("got %+v", d)
	}
}

func TestAllowAllocs(t *testing.T) {
	r, grams := newTestReceiver(2)
	r.b.allow.Store(allowing("10.0.0.0/31", "2001:db8::/32"))
	outside := *grams[0]
	outside.From = addr("203.0.113.1:9")
	mix := []*udpbatch.Datagram{grams[0], grams[1], &outside, grams[0]}
	if n := testing.AllocsPerRun(200, func() {
		for _, g := range mix {
			if ep := accept(r, g); (ep == nil) != (g == &outside) {
				t.Fatalf("%v: endpoint %v", g.From, ep)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

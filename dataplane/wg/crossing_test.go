package wg

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"corax/dataplane/key"
)

// crossing is a wire between two nodes that lets their first initiations cross:
// it holds each until both are there.
type crossing struct {
	a, b   *net.UDPConn // what b and a take for the other
	firsts sync.WaitGroup
}

// carry passes datagrams that come in on in to the address to, through out.
func (c *crossing) carry(in, out *net.UDPConn, to netip.AddrPort, lose bool) {
	buf := make([]byte, 2048)
	for first := true; ; first = false {
		n, err := in.Read(buf)
		if err != nil {
			return
		}
		if first {
			c.firsts.Done()
			c.firsts.Wait()
			if lose {
				continue
			}
		}
		_, _ = out.WriteToUDPAddrPort(buf[:n], to)
	}
}

// TestCrossingInitiations makes both sides of a pair shake hands at the same
// time, also when one of the initiations is lost. That it does not cost
// WireGuard's five seconds is TestYields' to say.
func TestCrossingInitiations(t *testing.T) {
	for _, c := range []struct {
		name              string
		loseLow, loseHigh bool
	}{
		{"both arrive", false, false},
		{"that of the lower key is lost", true, false},
		{"that of the higher key is lost", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			low, high := newNode(t, "10.0.0.1"), newNode(t, "10.0.0.2")
			if k, l := low.key.Public(), high.key.Public(); bytes.Compare(k[:], l[:]) > 0 {
				low, high = high, low
			}
			wire := &crossing{a: rawSocket(t), b: rawSocket(t)}
			wire.firsts.Add(2)
			var done sync.WaitGroup
			done.Go(func() { wire.carry(wire.b, wire.a, high.at("127.0.0.1"), c.loseLow) })
			done.Go(func() { wire.carry(wire.a, wire.b, low.at("127.0.0.1"), c.loseHigh) })
			t.Cleanup(func() {
				_ = wire.a.Close()
				_ = wire.b.Close()
				done.Wait()
			})
			mustPeers(t, low, high.peer(localAddr(wire.b)))
			mustPeers(t, high, low.peer(localAddr(wire.a)))
			low.Handshake(high.key.Public())
			high.Handshake(low.key.Public())
			up := func(n, peer *node) bool { return !n.status(peer.key.Public()).LastHandshake.IsZero() }
			eventually(t, "no handshake", func() bool { return up(low, high) && up(high, low) })
			exchange(t, low, high, 1)
			exchange(t, high, low, 2)
		})
	}
}

func TestYields(t *testing.T) {
	keys := []key.Public{{1}, {2}, {3}}
	start := time.Unix(1000, 0)
	msg := make([]byte, sizeInitiation)
	msg[0], msg[offSender] = 1, 7
	response := make([]byte, sizeResponse)
	for _, c := range []struct {
		name string
		peer key.Public
		do   func(*peer)
		at   time.Duration
		want bool
	}{
		{"ours is under way, the lower key", keys[2], nil, 0, true},
		{"ours is under way, the higher key", keys[0], nil, 0, false},
		{"a copy is under way", keys[2], func(p *peer) { p.overdue(start.Add(time.Second), true) }, time.Second, true},
		{"ours seem to get lost", keys[2], nil, crossFor, false},
		{"ours was answered", keys[2], func(p *peer) { p.answered(7) }, 0, false},
		{"theirs was answered", keys[2], func(p *peer) { p.answers(response, &way{}, start) }, 0, false},
	} {
		p := &peer{key: c.peer}
		if p.yields(keys[1], start.Add(-time.Hour)) {
			t.Errorf("%s: yields before anything was sent", c.name)
		}
		p.await(slices.Clone(msg), start)
		if c.do != nil {
			c.do(p)
		}
		if got := p.yields(keys[1], start.Add(c.at)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestHeldBack: ours must not cross the answer to an initiation that was let in,
// the first no more than a copy, and forged initiations must not keep it from
// being sent.
func TestHeldBack(t *testing.T) {
	self, start := key.Public{2}, time.Unix(1000, 0)
	msg := make([]byte, sizeInitiation)
	msg[0], msg[offSender] = 1, 7
	overdue := func(p *peer, at time.Time) bool {
		got, _ := p.overdue(at, true)
		return got != nil
	}
	for _, other := range []key.Public{{1}, {3}} {
		p := &peer{key: other}
		if p.yields(self, start) {
			t.Fatalf("key %v: yields", other[0])
		}
		if p.await(msg, start.Add(time.Millisecond)) {
			t.Errorf("key %v: ours crosses the answer", other[0])
		}
		if overdue(p, start.Add(answerFor-1)) || !overdue(p, start.Add(answerFor)) {
			t.Errorf("key %v: ours does not come when there is no answer", other[0])
		}

		p = &peer{key: other}
		p.yields(self, start)
		p.answers(make([]byte, sizeResponse), &way{}, start.Add(time.Millisecond))
		if !p.await(msg, start.Add(2*time.Millisecond)) {
			t.Errorf("key %v: ours is held back after the answer", other[0])
		}
	}
	p := &peer{key: key.Public{1}}
	p.await(msg, start)
	let := start.Add(resendAfter - time.Millisecond)
	p.yields(self, let)
	if overdue(p, start.Add(resendAfter)) || !overdue(p, let.Add(answerFor)) {
		t.Error("a copy crosses the answer, or does not come")
	}
	p, sent := &peer{key: key.Public{1}}, 0
	p.await(msg, start)
	for d := time.Duration(0); d < 5*time.Second; d += time.Millisecond {
		p.yields(self, start.Add(d))
		if overdue(p, start.Add(d)) {
			sent++
		}
	}
	if sent != maxResends {
		t.Errorf("%d copies among forged initiations, want %d", sent, maxResends)
	}
}

// TestCrossedIsRepeated: an initiation that the peer's crossed goes out once more
// at once, however many cross it, and its later copies come as they would have.
func TestCrossedIsRepeated(t *testing.T) {
	start := time.Unix(1000, 0)
	p := &peer{key: key.Public{3}}
	if p.crossed() != nil {
		t.Error("a copy of nothing")
	}
	msg := make([]byte, sizeInitiation)
	msg[0], msg[offSender] = 1, 7
	for range 2 { // the second one is another initiation
		p.await(msg, start)
		if got := p.crossed(); !bytes.Equal(got, msg) {
			t.Errorf("the copy is %x", got)
		}
		if p.crossed() != nil {
			t.Error("a second copy")
		}
		early, _ := p.overdue(start.Add(resendAfter-1), true)
		due, _ := p.overdue(start.Add(resendAfter), true)
		if early != nil || due == nil {
			t.Error("the next copy does not come when it would have")
		}
	}
	p.answered(7)
	if p.crossed() != nil {
		t.Error("a copy of one that was answered")
	}
}

// TestLostAmongCrossing loses the first initiation of the lower key, which drops
// the other one: they have a session before the lower key's next copy is due.
func TestLostAmongCrossing(t *testing.T) {
	low, high := newNode(t, "10.0.0.1"), newNode(t, "10.0.0.2")
	if k, l := low.key.Public(), high.key.Public(); bytes.Compare(k[:], l[:]) > 0 {
		low, high = high, low
	}
	wire := &crossing{a: rawSocket(t), b: rawSocket(t)}
	wire.firsts.Add(2)
	var done sync.WaitGroup
	done.Go(func() { wire.carry(wire.b, wire.a, high.at("127.0.0.1"), true) })
	done.Go(func() { wire.carry(wire.a, wire.b, low.at("127.0.0.1"), false) })
	t.Cleanup(func() {
		_ = wire.a.Close()
		_ = wire.b.Close()
		done.Wait()
	})
	mustPeers(t, low, high.peer(localAddr(wire.b)))
	mustPeers(t, high, low.peer(localAddr(wire.a)))
	low.Handshake(high.key.Public())
	high.Handshake(low.key.Public())
	eventually(t, "no handshake", func() bool {
		return !low.status(high.key.Public()).LastHandshake.IsZero()
	})
	if p := low.table.get(high.key.Public()); p.pendingSent() > 1 {
		t.Error("the session came with a copy that was sent later")
	}
	exchange(t, low, high, 1)
}

func (p *peer) pendingSent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pending.sent
}

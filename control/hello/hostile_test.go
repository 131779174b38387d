package hello

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// hand gives x a datagram from a peer.
func (n *network) hand(x *node, from netip.Addr, port int, b []byte) {
	n.deliver(x.key.Overlay(), datagram{b, &net.UDPAddr{IP: from.AsSlice(), Port: port}})
	synctest.Wait()
}

func TestHostileDatagrams(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	good, err := c.self(Self{Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	encode := func(m message) []byte {
		b, err := c.enc.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ok := message{Instance: 1, Topic: uint64(TopicSelf), Sequence: 1, Piece: good}
	with := func(change func(*message)) []byte {
		m := ok
		change(&m)
		return encode(m)
	}
	peer := peerKey(1).Overlay()
	for _, tt := range []struct {
		name   string
		from   netip.Addr
		port   int
		b      []byte
		reason string
	}{
		{"stranger", peerKey(50).Overlay(), Port, encode(ok), "stranger"},
		{"other port", peer, 4502, encode(ok), "stranger"},
		{"ourselves", peerKey(2).Overlay(), Port, encode(ok), "stranger"},
		{"empty", peer, Port, nil, "malformed"},
		{"too big", peer, Port, make([]byte, MaxMessage+1), "too_big"},
		{"trailing bytes", peer, Port, append(encode(ok), 0), "malformed"},
		{"cut", peer, Port, encode(ok)[:10], "malformed"},
		{"no instance", peer, Port, with(func(m *message) { m.Instance = 0 }), "malformed"},
		{"no sequence", peer, Port, with(func(m *message) { m.Sequence = 0 }), "malformed"},
		{"no piece", peer, Port, with(func(m *message) { m.Piece = nil }), "malformed"},
		{"unknown topic", peer, Port, with(func(m *message) { m.Topic = 99 }), "unknown_topic"},
		{"huge topic", peer, Port, with(func(m *message) { m.Topic = 1<<64 - 1 }), "unknown_topic"},
		{"part out of range", peer, Port, with(func(m *message) { m.Part, m.Parts = 2, 2 }), "malformed"},
		{"too many parts", peer, Port, with(func(m *message) { m.Parts = 2 }), "malformed"},
		{"indefinite map", peer, Port, append(append([]byte{0xbf}, encode(ok)[1:]...), 0xff), "malformed"},
		{"duplicate key", peer, Port, append([]byte{0xa5, 1, 1}, encode(ok)[1:]...), "malformed"},
		{"tag", peer, Port, append([]byte{0xc1}, encode(ok)...), "malformed"},
		{"deep", peer, Port, bytes.Repeat([]byte{0x81}, 1000), "malformed"},
		{"wrong value", peer, Port, with(func(m *message) { m.Piece = []byte{0x01} }), "malformed"},
		{"control character", peer, Port, with(func(m *message) { m.Piece = []byte{0xa1, 2, 0x62, 'a', 0x1b} }), "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				b := n.start(t, 2, nil)
				defer b.stop()
				n.hand(b, tt.from, tt.port, tt.b)
				if got := b.count("hello_drop_total", tt.reason); got != 1 {
					t.Errorf("%s: %d, want 1", tt.reason, got)
				}
				if b.Of(peerKey(1)).Self != nil {
					t.Error("it was believed")
				}
				n.hand(b, peer, Port, with(func(m *message) { m.Sequence = 9 })) // the next one is
				if b.Of(peerKey(1)).Self == nil {
					t.Error("a good one after it was not")
				}
			})
		})
	}
}

// Later versions may add map keys anywhere.
func TestLaterVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		b := n.start(t, 2, nil)
		defer b.stop()
		type later struct {
			message
			More []string `cbor:"99,keyasint"`
		}
		type laterSelf struct {
			wireSelf
			More map[string]int `cbor:"77,keyasint"`
		}
		piece, err := b.codec.enc.Marshal(laterSelf{wireSelf{Version: "v9"}, map[string]int{"x": 1}})
		if err != nil {
			t.Fatal(err)
		}
		m, err := b.codec.enc.Marshal(later{message{Instance: 1, Topic: 1, Sequence: 1, Piece: piece}, []string{"y"}})
		if err != nil {
			t.Fatal(err)
		}
		n.hand(b, peerKey(1).Overlay(), Port, m)
		if s := b.Of(peerKey(1)).Self; s == nil || s.Version != "v9" {
			t.Errorf("heard %v", s)
		}
		if c := b.count("hello_entry_ignored_total", "unknown_field"); c != 2 {
			t.Errorf("%d messages with unknown fields, want 2", c)
		}
	})
}

// A peer that floods is cut off; the others are heard.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		b := n.start(t, 2, nil)
		defer b.stop()
		for range 3 * inBurst {
			n.hand(b, peerKey(1).Overlay(), Port, []byte{0})
		}
		if c := b.count("hello_drop_total", "rate"); c != 2*inBurst {
			t.Errorf("%d dropped for their rate", c)
		}
		a := n.start(t, 3, nil)
		defer a.stop()
		a.must(a.SetSelf(Self{Version: "v1"}))
		a.SetActive(b.key, true)
		time.Sleep(20 * time.Millisecond)
		if b.Of(a.key).Self == nil {
			t.Error("another peer is not heard")
		}
	})
}

// Parts of values that never become whole are bounded, and dropped.
func TestUnfinishedParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		b := n.start(t, 2, nil)
		defer b.stop()
		piece := make([]byte, maxPiece)
		for seq := range uint64(400) {
			m, err := b.codec.enc.Marshal(message{Instance: 1, Topic: uint64(TopicRelay), Sequence: seq + 1, Part: 1, Parts: 100, Piece: piece})
			if err != nil {
				t.Fatal(err)
			}
			n.hand(b, peerKey(1).Overlay(), Port, m)
		}
		waiting := func() int {
			b.Exchange.mu.Lock()
			defer b.Exchange.mu.Unlock()
			return b.assembled
		}
		if got := waiting(); got != maxPiece {
			t.Errorf("%d bytes wait, want only the newest", got)
		}
		time.Sleep(assemblyTime + time.Second)
		synctest.Wait()
		if got := waiting(); got != 0 {
			t.Errorf("%d bytes still wait", got)
		}
		if c := b.count("hello_drop_total", "incomplete"); c != 1 {
			t.Errorf("%d incomplete", c)
		}
	})
}

package udpbatch

import (
	"testing"
)

// TestAllocs: neither direction allocates once its scratch exists.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties sync.Pool at random")
	}
	for _, ip := range loopbacks {
		for _, cfg := range []Config{{}, {plain: true}, {PacketInfo: true}} {
			c, peer := listen(t, cfg, ip), listen(t, cfg, ip)
			msgs := burst(peer, 64, 1400)
			for i := range msgs {
				msgs[i].Local = ip
			}
			dst := make([]Datagram, 64)
			round := func() {
				c.Write(msgs)
				for got := 0; got < len(msgs); {
					n, err := peer.Read(dst)
					if err != nil {
						t.Fatal(err)
					}
					got += n
				}
			}
			for range 10 {
				round()
			}
			if n := testing.AllocsPerRun(100, round); n != 0 {
				t.Errorf("%s %+v: %v allocations per round of 64, want 0", ip, cfg, n)
			}
		}
	}
}

func burst(to *Conn, n, size int) []Message {
	head, msgs := make([]byte, 22), make([]Message, n)
	for i := range msgs {
		msgs[i] = Message{To: to.LocalAddr(), Header: head, Payload: make([]byte, size)}
	}
	return msgs
}

func BenchmarkWriteRead(b *testing.B) {
	for _, cc := range configs[:3] {
		b.Run(cc.name, func(b *testing.B) {
			const n, size = 64, 1400
			c, peer := listen(b, cc.cfg, loopbacks[0]), listen(b, cc.cfg, loopbacks[0])
			msgs, dst := burst(peer, n, size), make([]Datagram, n)
			b.SetBytes(n * (size + 22))
			b.ReportAllocs()
			for b.Loop() {
				for got := c.Write(msgs); got > 0; {
					k, err := peer.Read(dst)
					if err != nil {
						b.Fatal(err)
					}
					got -= k
				}
			}
		})
	}
}

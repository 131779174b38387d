package hello

import (
	"net"
	"testing"
	"time"
)

// BenchmarkRepetition is a heartbeat that says nothing new: what a hub hears most.
func BenchmarkRepetition(b *testing.B) {
	n := newNetwork()
	k := peerKey(1)
	now := time.Unix(1, 0)
	e, err := New(Config{Now: func() time.Time { // slow enough for the rate limit
		now = now.Add(10 * time.Millisecond)
		return now
	}, Conn: n.listen(peerKey(2).Overlay()), Self: peerKey(2), PeerOf: few})
	if err != nil {
		b.Fatal(err)
	}
	value, err := e.codec.self(Self{Version: "v1", Gateway: "gw", Node: "n1"})
	if err != nil {
		b.Fatal(err)
	}
	m, err := e.codec.split(1, TopicSelf, 1, value)
	if err != nil {
		b.Fatal(err)
	}
	from := &net.UDPAddr{IP: k.Overlay().AsSlice(), Port: Port}
	b.ReportAllocs()
	for b.Loop() {
		e.datagram(m[0], from)
	}
	if e.counters.limited.Load() > 0 {
		b.Error("the rate limit was measured")
	}
}

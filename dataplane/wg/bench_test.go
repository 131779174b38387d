package wg

import (
	"fmt"
	"net/netip"
	"testing"

	"corax/dataplane"
	"corax/dataplane/internal/udpbatch"
	"corax/dataplane/key"
)

// benchPair is two devices and what leads from one to the other.
type benchPair struct {
	from, to *Device
	arrived  chan int
}

// newBenchPair makes one whose packets go direct, or by a label over a hub.
func newBenchPair(b *testing.B, relayed bool) *benchPair {
	b.Helper()
	x := &benchPair{arrived: make(chan int, 1<<16)}
	recv := dataplane.SenderFunc(func(batch []dataplane.Packet) { x.arrived <- len(batch) })
	x.from, x.to = newBenchDevice(b, discard()), newBenchDevice(b, recv)
	at := func(d *Device) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), d.Port())
	}
	peer := func(d *Device, ip netip.Addr, at netip.AddrPort) dataplane.Peer {
		return dataplane.Peer{PublicKey: d.self, AllowedIPs: []netip.Prefix{netip.PrefixFrom(ip, ip.BitLen())}, Endpoint: at}
	}
	set := func(d *Device, peers ...dataplane.Peer) {
		if err := d.SetPeers(peers); err != nil {
			b.Fatal(err)
		}
	}
	if !relayed {
		set(x.to, peer(x.from, inner1, at(x.from)))
		set(x.from, peer(x.to, inner2, at(x.to)))
		return x
	}
	hub := newBenchDevice(b, discard())
	ip := netip.MustParseAddr("10.0.0.3")
	set(hub, peer(x.from, inner1, at(x.from)), peer(x.to, inner2, at(x.to)))
	set(x.from, peer(hub, ip, at(hub)), peer(x.to, inner2, netip.AddrPort{}))
	set(x.to, peer(hub, ip, at(hub)), peer(x.from, inner1, netip.AddrPort{}))
	hub.SetLabels(map[Label]Forward{labelA: {x.from.self, x.to.self, labelB}, labelB: {x.to.self, x.from.self, labelA}})
	x.from.SetLabels(map[Label]Forward{labelA: {From: hub.self, To: x.to.self}})
	x.to.SetLabels(map[Label]Forward{labelB: {From: hub.self, To: x.from.self}})
	x.from.SetPath(x.to.self, Path{Via: hub.self, Label: labelA}, true)
	x.to.SetPath(x.from.self, Path{Via: hub.self, Label: labelB}, true)
	return x
}

// BenchmarkPair is the whole way: link, wireguard-go, two sockets, and back, on
// one machine, which also does the hub's part when there is one.
func BenchmarkPair(b *testing.B) {
	for _, relayed := range []bool{false, true} {
		b.Run(map[bool]string{false: "direct", true: "relayed"}[relayed], func(b *testing.B) {
			x := newBenchPair(b, relayed)
			var batch []dataplane.Packet
			for i := range uint32(32) {
				batch = append(batch, dataplane.Packet{Data: packet(inner1, inner2, dataplane.DefaultMTU, i)})
			}
			x.from.Send(batch[:1])
			<-x.arrived
			b.SetBytes(int64(len(batch) * dataplane.DefaultMTU))
			b.ReportAllocs()
			for b.Loop() {
				x.from.Send(batch)
				for n := 0; n < len(batch); {
					n += <-x.arrived
				}
			}
		})
	}
}

// BenchmarkRelayFrames is a hub's part without the receiving system call: looking
// up labels, and sending a batch; "plain write" is the sending alone.
func BenchmarkRelayFrames(b *testing.B) {
	d := newBenchDevice(b, discard())
	sink, err := udpbatch.Listen(udpbatch.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), RecvBuffer: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sink.Close() })
	const size = 1460
	b.Run("plain write", func(b *testing.B) {
		msgs := make([]udpbatch.Message, batchSize)
		for i := range msgs {
			msgs[i] = udpbatch.Message{To: sink.LocalAddr(), Payload: make([]byte, size)}
		}
		b.SetBytes(batchSize * size)
		for b.Loop() {
			d.bind.socks.Load().v4.Write(msgs)
		}
	})
	for _, pairs := range []int{1, 100} {
		b.Run(fmt.Sprintf("relay of %d pairs", pairs), func(b *testing.B) {
			r, grams := relayBatch(d.bind, sink.LocalAddr(), pairs, batchSize, 8)
			b.SetBytes(batchSize * size)
			b.ReportAllocs()
			for b.Loop() {
				relayAll(r, grams)
			}
		})
	}
}

// BenchmarkHub is all of a hub's part, of one flow: one goroutine sends frames,
// the hub's receive loop passes them on, and the benchmark counts what comes out.
// "socket to socket" is the same way without a hub.
func BenchmarkHub(b *testing.B) {
	listen := func() *udpbatch.Conn {
		c, err := udpbatch.Listen(udpbatch.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		return c
	}
	for _, relayed := range []bool{false, true} {
		b.Run(map[bool]string{false: "socket to socket", true: "over the hub"}[relayed], func(b *testing.B) {
			from, to := listen(), listen()
			dst := to.LocalAddr()
			if relayed {
				d := newBenchDevice(b, discard())
				p, q := key.Public{1}, key.Public{2}
				if err := d.SetPeers([]dataplane.Peer{{PublicKey: p, Endpoint: from.LocalAddr()}, {PublicKey: q, Endpoint: dst}}); err != nil {
					b.Fatal(err)
				}
				d.SetLabels(map[Label]Forward{5: {p, q, 6}})
				dst = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), d.Port())
			}
			msgs := make([]udpbatch.Message, 44)
			for i := range msgs {
				msgs[i] = udpbatch.Message{To: dst, Payload: frame(5, message(1452, 4))}
			}
			grams := make([]udpbatch.Datagram, len(msgs))
			b.SetBytes(int64(len(msgs) * 1460))
			for b.Loop() {
				from.Write(msgs)
				for n := 0; n < len(msgs); {
					k, err := to.Read(grams)
					if err != nil {
						b.Fatal(err)
					}
					n += k
				}
			}
		})
	}
}

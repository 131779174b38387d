package vxlan

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane"
)

// TestSend compares what arrives at two plain sockets with what was sent: every
// packet once, behind the right header, in order per VTEP.
func TestSend(t *testing.T) {
	port := freePort(t)
	e := newEndpoint(t, self, port, nil)
	e.SetVTEPs(testVTEPs())
	socks := map[netip.Addr]*net.UDPConn{}
	for _, a := range []netip.Addr{node, gateway} {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
		if err != nil {
			t.Skipf("port is taken: %v", err)
		}
		defer c.Close()
		_ = c.SetReadBuffer(4 << 20)
		socks[a] = c
	}
	rng := rand.New(rand.NewPCG(9, 10))
	buf := make([]byte, 1<<16)
	var sent uint64
	for range 40 {
		want := map[netip.Addr][][]byte{}
		var batch []dataplane.Packet
		for range 1 + rng.IntN(200) {
			to := []netip.Addr{node, gateway, stranger, {}}[min(3, rng.IntN(10)/4+rng.IntN(10)/9)]
			body := make([]byte, []int{8, 1200, 1380}[rng.IntN(3)])
			binary.BigEndian.PutUint32(body[4:], rng.Uint32())
			pkt := ip4("10.0.0.1", "10.0.0.2", protoUDP, body)
			if rng.IntN(3) == 0 {
				pkt = ip6("fd00::1", "fd00::2", protoUDP, body)
			}
			if rng.IntN(20) == 0 {
				pkt = pkt[:rng.IntN(10)] // no IP packet
			}
			batch = append(batch, dataplane.Packet{Data: pkt, VTEP: to})
			if typ := etherTypeOf(pkt); typ != 0 && socks[to] != nil {
				want[to] = append(want[to], datagram(NodeMAC(to), NodeMAC(self), typ, pkt))
				sent++
			}
		}
		e.Send(batch)
		for to, list := range want {
			for i, w := range list {
				_ = socks[to].SetReadDeadline(time.Now().Add(5 * time.Second))
				n, from, err := socks[to].ReadFromUDPAddrPort(buf)
				if err != nil || !bytes.Equal(buf[:n], w) {
					t.Fatalf("datagram %d of %d to %s: %v\n got %x\nwant %x", i, len(list), to, err, buf[:n], w)
				}
				if from.Port() != port {
					t.Fatalf("from port %d, want %d", from.Port(), port)
				}
			}
		}
	}
	if got := e.count.tx.Load(); got != sent {
		t.Errorf("counted %d packets, want %d", got, sent)
	}
	if e.dropped(dropNoVTEP) == 0 || e.dropped(dropNotIP) == 0 {
		t.Errorf("no_vtep %d, not_ip %d: want both above 0", e.dropped(dropNoVTEP), e.dropped(dropNotIP))
	}
}

// pair is two Endpoints on loopback that know each other.
func pair(t testing.TB, recv dataplane.SenderFunc) (a, b *Endpoint) {
	port := freePort(t)
	a, b = newEndpoint(t, self, port, nil), newEndpoint(t, node, port, recv)
	everything := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	a.SetVTEPs([]dataplane.VTEP{{Addr: node, Sources: everything}})
	b.SetVTEPs([]dataplane.VTEP{{Addr: self, Sources: everything}})
	return a, b
}

func packetBatch(n, size int, to netip.Addr) []dataplane.Packet {
	batch := make([]dataplane.Packet, n)
	for i := range batch {
		batch[i] = dataplane.Packet{Data: ip4("10.1.0.1", "10.2.0.1", protoUDP, make([]byte, size-ipv4Len)), VTEP: to}
	}
	return batch
}

// TestAllocs sends and receives a batch without an allocation.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties sync.Pool at random")
	}
	got := 0
	a, b := pair(t, func(batch []dataplane.Packet) { got += len(batch) })
	batch := packetBatch(64, 1400, node)
	in := newReceiver(b)
	round := func() {
		a.Send(batch)
		for got = 0; got < len(batch); {
			if err := in.step(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 10 {
		round()
	}
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations per batch of %d, want 0", n, len(batch))
	}
}

func BenchmarkSendReceive(b *testing.B) {
	for _, size := range []int{64, 512, 1400} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			got := 0
			x, y := pair(b, func(batch []dataplane.Packet) { got += len(batch) })
			batch := packetBatch(64, size, node)
			in := newReceiver(y)
			b.SetBytes(int64(len(batch) * size))
			b.ReportAllocs()
			for b.Loop() {
				x.Send(batch)
				for got = 0; got < len(batch); {
					if err := in.step(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func TestNewErrors(t *testing.T) {
	recv := dataplane.SenderFunc(func([]dataplane.Packet) {})
	taken := newEndpoint(t, self, freePort(t), nil)
	for name, cfg := range map[string]Config{
		"no address":  {Receive: recv},
		"any address": {Addr: netip.IPv4Unspecified(), Receive: recv},
		"no receiver": {Addr: self},
		"wide vni":    {Addr: self, Receive: recv, VNI: 1 << 24},
		"taken port":  {Addr: self, Receive: recv, Port: taken.LocalAddr().Port()},
	} {
		if e, err := New(cfg); err == nil {
			e.Close()
			t.Errorf("%s: want an error", name)
		}
	}
}

// TestRun: a cancelled Run returns nil, with its socket closed and its goroutines
// gone.
func TestRun(t *testing.T) {
	port := freePort(t)
	for range 3 {
		e, err := New(Config{Addr: self, Port: port, Receive: dataplane.SenderFunc(func([]dataplane.Packet) {})})
		if err != nil {
			t.Fatalf("the port is still taken: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		cancel()
		if err := <-done; err != nil {
			t.Fatalf("Run = %v, want nil", err)
		}
	}
	stacks := make([]byte, 1<<20)
	if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("vxlan.(*Endpoint)")) {
		t.Errorf("something still runs:\n%s", stacks)
	}
}

func TestSetVTEPsUnusable(t *testing.T) {
	e := newEndpoint(t, self, freePort(t), nil)
	unusable := e.SetVTEPs([]dataplane.VTEP{
		{Node: "self", Addr: self},
		{Node: "six", Addr: netip.MustParseAddr("fd00::1")},
		{Node: "none"},
		{Node: "one", Addr: node},
		{Node: "again", Addr: node},
		{Node: "same segment address", Addr: netip.MustParseAddr("126.0.0.3")},
		{Node: "our segment address", Addr: netip.MustParseAddr("126.0.0.2")},
	})
	var got []string
	for _, err := range unusable {
		got = append(got, err.Error())
	}
	want := []string{
		`vxlan: node "six": address fd00::1 is not of the underlay's family`,
		`vxlan: node "none": address invalid IP is not of the underlay's family`,
		`vxlan: node "again": address 127.0.0.3 is another node's too`,
		`vxlan: node "our segment address": 126.0.0.2 gives the segment address 240.0.0.2, which is another node's too: the last three octets of node addresses must differ`,
		`vxlan: node "one": 127.0.0.3 gives the segment address 240.0.0.3, which is another node's too: the last three octets of node addresses must differ`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	tab := e.table.Load()
	if len(tab.sorted) != 3 || tab.byAddr[node] == nil {
		t.Fatalf("%d vteps, want 3", len(tab.sorted))
	}
	if got := tab.macs[NodeMAC(node)]; got == nil || got.addr != netip.MustParseAddr("126.0.0.3") || len(tab.macs) != 1 {
		t.Errorf("static FDB %v: want the first address only", tab.macs)
	}
}

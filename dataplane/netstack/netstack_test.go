package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/link/pipe"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"corax/dataplane"
)

var discard = dataplane.SenderFunc(func([]dataplane.Packet) {})

func TestConfig(t *testing.T) {
	segment, _ := pipe.New("\xaa\x0f\xf0\x00\x00\x01", "\xaa\x0f\xf0\x00\x00\x02", 1400)
	for _, row := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no address", Config{Send: discard}, "not IPv6"},
		{"IPv4", Config{Overlay: netip.MustParseAddr("10.0.0.1"), Send: discard}, "not IPv6"},
		{"small MTU", Config{Overlay: addrA, Send: discard, MTU: 1279}, "MTU 1279"},
		{"large MTU", Config{Overlay: addrA, Send: discard, MTU: 70000}, "MTU 70000"},
		{"no sender", Config{Overlay: addrA}, "nowhere to send"},
		{"segment without address", Config{Overlay: addrA, Send: discard, Segment: segment}, "segment address"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := New(row.cfg)
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), "netstack: ") {
				t.Fatalf("%v, want one with %q", err, row.want)
			}
		})
	}
}

func TestRunTwice(t *testing.T) {
	noLeaks(t)
	s := mustNew(t, addrA, discard)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(ctx); err == nil {
		t.Fatal("a second Run")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSetMTU(t *testing.T) {
	p := newPair(t)
	if err := p.a.SetMTU(1200); err == nil {
		t.Fatal("an MTU below that of IPv6")
	}
	for _, s := range []*Stack{p.a, p.b} {
		if err := s.SetMTU(8000); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.a.Ping(timeout(t), addrB, 7000); err != nil {
		t.Fatal(err)
	}
}

// TestNotOurs: packets for others and what is not IPv6 get no answer.
func TestNotOurs(t *testing.T) {
	answers := 0
	s := mustNew(t, addrA, dataplane.SenderFunc(func(b []dataplane.Packet) { answers += len(b) }))
	defer s.Close()
	other := netip.MustParseAddr("fd63:6f72:6178::c")
	v4 := make([]byte, 60)
	v4[0] = 0x45
	s.Send([]dataplane.Packet{
		{},
		{Data: []byte{0x60}},
		{Data: v4},
		{Data: make([]byte, 70000)},
		{Data: echoRequest(addrB, other, 1, 8)},
		{Data: echoRequest(addrB, addrA, 1, 8)[:45]},
	})
	newOutput(s.link, s.send, &s.count).drain()
	if answers != 0 {
		t.Errorf("%d answers", answers)
	}
	for reason, want := range map[string]uint64{"not_ipv6": 4, "not_ours": 1, "malformed": 1} {
		if n := counter(s, "netstack_drop_total", reason); n != want {
			t.Errorf("%s: %d, want %d", reason, n, want)
		}
	}
	s.Send([]dataplane.Packet{{Data: echoRequest(addrB, addrA, 1, 8)}})
	newOutput(s.link, s.send, &s.count).drain()
	if answers != 1 {
		t.Errorf("%d answers to one ping", answers)
	}
}

// TestFlood: nobody empties the queue, and strangers send what they like. The
// memory stays within the bounds.
func TestFlood(t *testing.T) {
	s := mustNew(t, addrA, discard)
	defer s.Close()
	l, err := s.ListenTCP(80)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := s.ListenUDP(4501)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()

	big := echoRequest(addrB, addrA, 1, 1300)
	before := heap()
	for i := range 20000 {
		s.Send([]dataplane.Packet{
			{Data: big}, {Data: datagram(uint16(i))}, {Data: syn(uint16(i), uint32(i))}, {Data: fragment(uint32(i))},
		})
	}
	if n := counter(s, "netstack_drop_total", "queue_full"); n == 0 {
		t.Error("the queue has no bound")
	}
	if n := len(s.link.queue.bytes); n > bufferMax {
		t.Errorf("%d bytes queued, bound is %d", n, bufferMax)
	}
	if after := heap(); after > before+20<<20 {
		t.Errorf("heap grew from %d to %d KiB", before>>10, after>>10)
	} else {
		t.Logf("heap grew from %d to %d KiB", before>>10, after>>10)
	}
	newOutput(s.link, s.send, &s.count).drain()
	if n := len(s.link.queue.bytes); n != 0 {
		t.Errorf("%d bytes left after drain", n)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func ip6(proto uint8, payload []byte) []byte {
	b := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(payload))
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(payload)), HopLimit: 64,
		SrcAddr: address(addrB), DstAddr: address(addrA),
	})
	b[6] = proto
	return append(b, payload...)
}

func datagram(sport uint16) []byte {
	u := header.UDP(make([]byte, 1000))
	u.Encode(&header.UDPFields{SrcPort: sport, DstPort: 4501, Length: uint16(len(u))})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, address(addrB), address(addrA), uint16(len(u)))
	u.SetChecksum(^u.CalculateChecksum(sum))
	return ip6(uint8(header.UDPProtocolNumber), u)
}

func syn(sport uint16, seq uint32) []byte {
	c := header.TCP(make([]byte, header.TCPMinimumSize))
	c.Encode(&header.TCPFields{SrcPort: sport, DstPort: 80, SeqNum: seq, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 9999})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, address(addrB), address(addrA), uint16(len(c)))
	c.SetChecksum(^c.CalculateChecksum(sum))
	return ip6(uint8(header.TCPProtocolNumber), c)
}

// fragment is the first part of a packet whose rest never comes.
func fragment(id uint32) []byte {
	f := make([]byte, 8+1200)
	f[0], f[3] = uint8(header.UDPProtocolNumber), 1
	binary.BigEndian.PutUint32(f[4:], id)
	return ip6(44, f)
}

// TestSegment: two stacks reach each other by their segment addresses, which lie
// in a reserved block, and find each other by ARP.
func TestSegment(t *testing.T) {
	noLeaks(t)
	la, lb := pipe.New("\xaa\x0f\x0a\x00\x00\x01", "\xaa\x0f\x0a\x00\x00\x02", 1414)
	segA, segB := netip.MustParsePrefix("240.10.0.1/8"), netip.MustParsePrefix("240.10.0.2/8")
	var stacks []*Stack
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer wg.Wait()
	defer cancel()
	for _, c := range []Config{
		{Overlay: addrA, Send: discard, Segment: ethernet.New(la), SegmentAddr: segA},
		{Overlay: addrB, Send: discard, Segment: ethernet.New(lb), SegmentAddr: segB},
	} {
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		stacks = append(stacks, s)
		wg.Go(func() { _ = s.Run(ctx) })
	}
	// Nobody listens: the refusal is the proof that both directions work.
	if _, err := stacks[0].DialTCP(timeout(t), netip.AddrPortFrom(segB.Addr(), 9)); err == nil ||
		errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("%v, want a refusal", err)
	}
}

// TestQueueKeepsLittle: the queue has a bound, and gives its memory back.
func TestQueueKeepsLittle(t *testing.T) {
	l := newLink(1408, bufferMax)
	var list stack.PacketBufferList
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(make([]byte, 1000))})
	defer pkt.DecRef()
	for range 5000 {
		list.PushBack(pkt.IncRef())
	}
	defer list.DecRef()
	n, err := l.WritePackets(list)
	if err != nil || n != bufferMax/1000 || l.full.Load() != uint64(5000-n) {
		t.Fatalf("%d packets taken, %d dropped, %v", n, l.full.Load(), err)
	}
	sent := 0
	o := newOutput(l, sender(func(batch []dataplane.Packet) { sent += len(batch) }), new(counters))
	o.drain()
	if sent != n || !o.burst {
		t.Fatalf("%d of %d packets sent, burst %v", sent, n, o.burst)
	}
	held := func() int { return cap(o.spare.bytes) + cap(l.queue.bytes) }
	if held() < bufferMax {
		t.Fatal("the memory of a burst was dropped at once")
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(3*restAfter, cancel)
	if err := o.run(ctx, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if held() > 0 {
		t.Fatalf("an idle queue keeps %d bytes", held())
	}
}

type sender func([]dataplane.Packet)

func (s sender) Send(batch []dataplane.Packet) { s(batch) }

func BenchmarkTCP(b *testing.B) {
	p := newPair(b)
	x, y := p.connect(b)
	buf := make([]byte, 1<<20)
	go func() {
		sink := make([]byte, 1<<20)
		for {
			if _, err := y.Read(sink); err != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := x.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPing(b *testing.B) {
	p := newPair(b)
	for b.Loop() {
		if _, err := p.a.Ping(b.Context(), addrB, 56); err != nil {
			b.Fatal(err)
		}
	}
}

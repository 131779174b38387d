package wg

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gaissmai/bart"
	"golang.zx2c4.com/wireguard/device"

	"corax/dataplane"
	"corax/dataplane/key"
)

var (
	inner1 = netip.MustParseAddr("10.0.0.1")
	inner2 = netip.MustParseAddr("10.0.0.2")
)

// newTestLink returns an open link with one peer that owns inner2.
func newTestLink(recv dataplane.Sender) (*link, *peer) {
	l := newLink("t", dataplane.DefaultMTU, recv, newTestBind())
	p := l.table.add(key.Public{1})
	owners := new(bart.Table[*peer])
	owners.Insert(netip.PrefixFrom(inner2, 32), p)
	owners.Insert(netip.MustParsePrefix("fd00::2/128"), p)
	l.owners.Store(owners)
	l.open.Store(true)
	return l, p
}

// TestWanted: packets make a peer wanted, once a second; what agents tell each
// other does not, nor a destination of nobody.
func TestWanted(t *testing.T) {
	b := newTestBind()
	var got []key.Public
	b.wanted = func(k key.Public) { got = append(got, k) }
	l := newLink("t", dataplane.DefaultMTU, nil, b)
	p := b.table.add(key.Public{1})
	overlay, self := p.key.Overlay(), key.Public{2}.Overlay()
	owners := new(bart.Table[*peer])
	owners.Insert(netip.PrefixFrom(inner2, 32), p)
	owners.Insert(netip.PrefixFrom(overlay, 128), p)
	l.owners.Store(owners)
	bufs, sizes := newOffer(8)
	l.offer = offer{bufs, sizes, 16}
	hello, proxy := packet(self, overlay, 100, 1), packet(self, overlay, 100, 1)
	proxy[6] = 6
	for _, step := range []struct {
		name  string
		age   time.Duration // of the last time it was told
		batch [][]byte
		want  int
	}{
		{"hello", 0, [][]byte{hello, hello}, 0},
		{"nobody's", 0, [][]byte{packet(inner2, inner1, 100, 1)}, 0},
		{"first packet, after a hello", 0, [][]byte{hello, packet(inner1, inner2, 100, 1)}, 1},
		{"soon after", tellEvery / 2, [][]byte{packet(inner1, inner2, 100, 1)}, 0},
		{"later, a proxy stream", tellEvery, [][]byte{hello, proxy, proxy}, 1},
	} {
		got = nil
		if step.age > 0 {
			p.wanted.Store(int64(l.gate.now() - step.age))
		}
		var batch []dataplane.Packet
		for _, b := range step.batch {
			batch = append(batch, dataplane.Packet{Data: b})
		}
		l.mu.Lock()
		l.fillLocked(batch)
		l.mu.Unlock()
		if len(got) != step.want {
			t.Errorf("%s: told %d times, want %d", step.name, len(got), step.want)
		}
	}
}

func newOffer(n int) (bufs [][]byte, sizes []int) {
	for range n {
		bufs = append(bufs, make([]byte, device.MaxMessageSize))
	}
	return bufs, make([]int, n)
}

// TestLinkOrder sends packets from one goroutine in batches of all sizes, more
// than one Read takes: they arrive whole and in order.
func TestLinkOrder(t *testing.T) {
	l, p := newTestLink(nil)
	const total = 1000
	var wg sync.WaitGroup
	wg.Go(func() {
		mark := uint32(0)
		for size := 1; mark < total; size = size*3%311 + 1 {
			var batch []dataplane.Packet
			for range min(size, total-int(mark)) {
				batch = append(batch, dataplane.Packet{Data: packet(inner1, inner2, 28+int(mark)%1300, mark)})
				mark++
			}
			l.Send(batch)
		}
	})
	bufs, sizes := newOffer(batchSize)
	const offset = 16
	for mark := uint32(0); mark < total; {
		n, err := l.Read(bufs, sizes, offset)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			want := packet(inner1, inner2, 28+int(mark)%1300, mark)
			if got := bufs[i][offset : offset+sizes[i]]; !bytes.Equal(got, want) {
				t.Fatalf("packet %d is wrong", mark)
			}
			mark++
		}
		l.gate.passed(p, n)
	}
	wg.Wait()
	if n := l.drops.n[dropNoSession].Load(); n != 0 {
		t.Errorf("%d dropped", n)
	}
}

func TestLinkDrops(t *testing.T) {
	l, _ := newTestLink(nil)
	bufs, sizes := newOffer(4)
	read := make(chan int, 1)
	go func() {
		n, _ := l.Read(bufs, sizes, 16)
		read <- n
	}()
	fd1, fd2 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	l.Send([]dataplane.Packet{
		{Data: packet(inner2, inner1, 100, 0)}, // nobody has inner1
		{Data: packet(fd2, fd1, 100, 0)},
		{Data: nil},
		{Data: []byte{0x45}},
		{Data: make([]byte, 60)}, // version 0
		{Data: packet(inner1, inner2, device.MaxContentSize+1, 0)},
	})
	if n := l.drops.n[dropNoPeer].Load(); n != 5 {
		t.Errorf("%d dropped for want of a peer, want 5", n)
	}
	if n := l.drops.n[dropTooBig].Load(); n != 1 {
		t.Errorf("%d too big, want 1", n)
	}
	l.Send([]dataplane.Packet{{Data: packet(fd1, fd2, 100, 0)}, {Data: packet(inner1, inner2, device.MaxContentSize, 0)}})
	if n := <-read; n != 2 || sizes[0] != 100 || sizes[1] != device.MaxContentSize {
		t.Errorf("read %d packets of %v", n, sizes)
	}
}

// TestLinkClose closes while Sends and a Read are at work: all return, and none
// touches the buffers of a Read that has returned.
// TestLinkStarved: packets that find no session count, sent or not, unless they
// are the agent's own; with a session none does.
func TestLinkStarved(t *testing.T) {
	l, p := newTestLink(nil)
	overlay := key.Public{1}.Overlay()
	owners := l.owners.Load().Clone()
	owners.Insert(netip.PrefixFrom(overlay, 128), p)
	l.owners.Store(owners)
	bufs, sizes := newOffer(batchSize)
	send := func(n int, pkt []byte) {
		t.Helper()
		batch := make([]dataplane.Packet, n)
		for i := range batch {
			batch[i].Data = pkt
		}
		go l.Send(batch)
		if _, err := l.Read(bufs, sizes, 16); err != nil {
			t.Fatal(err)
		}
	}
	send(3, packet(netip.MustParseAddr("fd00::1"), overlay, 80, 0))
	if n := p.starved.Load(); n != 0 {
		t.Errorf("the agent's own: %d", n)
	}
	send(5, packet(inner1, inner2, 84, 0))
	send(1, packet(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 84, 0))
	if n := p.starved.Load(); n != 6 {
		t.Errorf("without a session: %d, want 6", n)
	}
	l.gate.passed(p, 9) // now there is one
	send(5, packet(inner1, inner2, 84, 0))
	if n := p.starved.Load(); n != 6 {
		t.Errorf("with a session: %d, want 6", n)
	}
}

func TestLinkClose(t *testing.T) {
	l, p := newTestLink(nil)
	var wg sync.WaitGroup
	busy := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for l.open.Load() {
				l.Send([]dataplane.Packet{{Data: packet(inner1, inner2, 100, 0)}})
			}
		})
	}
	wg.Go(func() {
		bufs, sizes := newOffer(2)
		for i := 0; ; i++ {
			n, err := l.Read(bufs, sizes, 16)
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
				for _, b := range bufs {
					clear(b) // the race detector sees who still writes
				}
				return
			}
			l.gate.passed(p, n)
			if i == 100 {
				close(busy)
			}
		}
	})
	<-busy
	for range 2 { // the second does nothing
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	before := l.drops.n[dropStopped].Load()
	l.Send([]dataplane.Packet{{Data: packet(inner1, inner2, 100, 0)}})
	if l.drops.n[dropStopped].Load() != before+1 {
		t.Error("a packet after Close is not counted")
	}
	l.setMTU(1200) // does not send on the closed channel
}

func TestLinkWrite(t *testing.T) {
	var got [][]byte
	l, _ := newTestLink(dataplane.SenderFunc(func(batch []dataplane.Packet) {
		for _, p := range batch {
			if cap(p.Data) != len(p.Data) || p.VTEP.IsValid() {
				t.Error("a packet shows what lies behind it, or has a VTEP")
			}
			got = append(got, bytes.Clone(p.Data))
		}
	}))
	want := [][]byte{packet(inner2, inner1, 50, 1), packet(inner2, inner1, 90, 2)}
	var bufs [][]byte
	for _, w := range want {
		bufs = append(bufs, append(make([]byte, 16, 200), w...))
	}
	l.in.add(3)
	if n, err := l.Write(bufs, 16); n != 2 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("packet %d is wrong", i)
		}
	}
	if l.in.n.Load() != 1 {
		t.Errorf("%d count as in flight, want 1", l.in.n.Load())
	}
}

func TestLinkAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l, p := newTestLink(dataplane.SenderFunc(func([]dataplane.Packet) {}))
	bufs, sizes := newOffer(8)
	var batch []dataplane.Packet
	for i := range uint32(8) {
		batch = append(batch, dataplane.Packet{Data: packet(inner1, inner2, 1400, i)})
	}
	l.offer = offer{bufs, sizes, 16}
	l.gate.passed(p, 1)
	if n := testing.AllocsPerRun(200, func() {
		l.ready <- struct{}{}
		l.Send(batch)
		l.gate.passed(p, <-l.filled)
	}); n != 0 {
		t.Errorf("Send: %v allocations", n)
	}
	if n := testing.AllocsPerRun(200, func() { _, _ = l.Write(bufs, 16) }); n != 0 {
		t.Errorf("Write: %v allocations", n)
	}
}

func TestNews(t *testing.T) {
	direct := way{to: netip.MustParseAddrPort("192.0.2.1:4500")}
	relayed, other := way{via: &peer{}, label: 1}, way{via: &peer{}, label: 2}
	p := &peer{}
	var now time.Duration
	for _, step := range []struct {
		after time.Duration // of the step before
		way   way
		want  bool
	}{
		{time.Hour, relayed, true},
		{0, relayed, false},
		{tellEvery - 1, relayed, false},
		{1, relayed, true},
		{tellOther - 1, direct, false},
		{1, direct, true},
		{tellOther, other, true},
		{tellOther, direct, true}, // it changes its mind
		{tellOther, direct, false},
		{tellEvery, direct, true},
	} {
		now += step.after
		if got := p.news(&step.way, now); got != step.want {
			t.Errorf("at %v: %v, want %v", now, got, step.want)
		}
	}
}

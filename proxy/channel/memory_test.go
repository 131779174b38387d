package channel_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"corax/control"
	"corax/proxy"
	"corax/proxy/channel"
	"corax/proxy/edge"
	"corax/proxy/proxytest"
	"corax/proxy/splice"
)

// stalling is a front's end and an edge of one process, with a node that gives back
// what it gets on one port, and sends without end on another.
type stalling struct {
	live    *proxy.Live
	channel *channel.Channel
	pool    *splice.Pool
	wg      sync.WaitGroup

	counters proxy.Counters // of the edge, and the ends of streams of the front
}

const pressed = 10255 // sends without end

func newStalling(t *testing.T, limits proxy.Limits) *stalling {
	m := newMesh(t)
	s := &stalling{live: proxy.NewLive(limits), pool: new(splice.Pool)}
	stack := m.add(t, netip.MustParseAddr("fd63:6f72:6178::9"))
	ln, err := stack.ListenTCP(proxy.OverlayPort)
	if err != nil {
		t.Fatal(err)
	}
	echo, endless := serve(t, "node"), pour(t)
	e, err := edge.New(edge.Config{Listener: ln, Live: s.live, Pool: s.pool, Counters: &s.counters, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		if _, port, _ := net.SplitHostPort(address); port == "10255" {
			return d.DialContext(ctx, network, endless)
		}
		return d.DialContext(ctx, network, echo)
	}})
	if err != nil {
		t.Fatal(err)
	}
	node := control.ProxyNode{Name: "node", Gateway: "g", IP: netip.MustParseAddr(nodeIP), Own: true, Ports: []uint16{10250, pressed}}
	e.Apply(control.Proxy{Edge: true, Callers: []netip.Addr{g3}, Ports: node.Ports, Nodes: []control.ProxyNode{node}}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	s.wg.Go(func() { _ = e.Run(ctx) })
	t.Cleanup(func() { cancel(); s.wg.Wait() })
	m.overlay.mu.RLock()
	s.channel, err = channel.New(channel.Config{Overlay: m.overlay.stacks[g3].DialTCP})
	m.overlay.mu.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	node.Own, node.Via = false, []netip.Addr{netip.MustParseAddr("fd63:6f72:6178::9")}
	s.channel.Apply([]control.ProxyNode{node})
	return s
}

// pour is a node's port that sends for as long as somebody takes it.
func pour(t *testing.T) string {
	t.Helper()
	return proxytest.TCP(t, func(c net.Conn) {
		block := make([]byte, 4<<10)
		for err := error(nil); err == nil; {
			_, err = c.Write(block)
		}
	}).String()
}

// open is what a front does for a caller, whose end it returns.
func (s *stalling) open(t *testing.T, port uint16) (net.Conn, error) {
	t.Helper()
	target := proxy.Target{Node: "node", Port: port}
	stream, err := s.live.Open(proxy.StreamInfo{Side: proxy.SideFront, Target: target, Caller: netip.MustParseAddrPort("10.0.0.9:1")})
	if err != nil {
		return nil, err
	}
	node, err := s.channel.Dial(t.Context(), target)
	if err != nil {
		stream.Close()
		return nil, err
	}
	caller, here := tcpPair(t)
	stream.BindCaller(here)
	stream.BindNode(node)
	ctx, end := context.WithCancelCause(context.Background())
	stream.EndIdle(end)
	s.wg.Go(func() {
		defer end(nil)
		defer stream.Close()
		s.counters.Ended(s.pool.Join(ctx, here, node, splice.Config{Memory: stream}))
	})
	return caller, nil
}

func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// TestMemoryOfStalledStreams: hundreds of callers that read nothing stay within the
// memory that there is for all streams; the next ones are refused, and who reads is
// served.
func TestMemoryOfStalledStreams(t *testing.T) {
	const budget = stalledStreams * 2 * 192 << 10 // both ends are here
	s := newStalling(t, proxy.Limits{Streams: 1 << 20, Memory: budget})
	reader, err := s.open(t, 10250)
	if err != nil {
		t.Fatal(err)
	}
	echo := func(n int) {
		t.Helper()
		_ = reader.SetDeadline(time.Now().Add(60 * time.Second))
		go func() { _, _ = reader.Write(make([]byte, n)) }()
		if _, err := io.ReadFull(reader, make([]byte, n)); err != nil {
			t.Fatalf("the stream that is read: %v", err)
		}
	}
	echo(64 << 10)
	before, goroutines := used(), runtime.NumGoroutine()
	var stalled []net.Conn
	for range stalledStreams {
		c, err := s.open(t, pressed)
		if err != nil {
			t.Fatalf("stream %d: %v", len(stalled), err)
		}
		stalled = append(stalled, c)
	}
	var last uint64
	still := 0
	eventually(t, "the buffers are full", func() bool {
		now := s.moved()
		if still++; now != last {
			last, still = now, 0
		}
		return still > 5
	})
	held := used() - min(before, used())
	t.Logf("%d streams hold %d MiB of %d, %d are charged", len(stalled), held>>20, budget>>20, s.live.Memory()>>20)
	if held > budget || s.live.Memory() > budget {
		t.Errorf("%d bytes are held and %d charged, of %d", held, s.live.Memory(), budget)
	}
	echo(256 << 10)
	var refused error
	for refused == nil {
		var c net.Conn
		if c, refused = s.open(t, 10250); refused == nil {
			stalled = append(stalled, c)
		}
	}
	if proxy.CodeOf(refused) != proxy.CodeMemory {
		t.Errorf("one stream more: %v", refused)
	}
	echo(64 << 10)
	for _, c := range append(stalled, reader) {
		_ = c.Close()
	}
	eventually(t, "all is given back", func() bool { return s.live.Memory() == 0 && s.live.Len() == 0 })
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines+5 })
	eventually(t, "memory is free", func() bool { return used() < before+budget/8 })
}

// TestMemoryOfRestingStreams: streams at rest are charged for little, so that many times
// more of them may be open than could move at once; they move when they are asked to,
// and those that stall beyond what there is end, alone.
func TestMemoryOfRestingStreams(t *testing.T) {
	const budget, streams = 11 << 19, 60 // of which both ends are here: 3.75 MiB at rest
	s := newStalling(t, proxy.Limits{Streams: 1 << 20, Memory: budget})
	var all []net.Conn
	eventually(t, "streams rest, and others are opened", func() bool {
		for len(all) < streams {
			c, err := s.open(t, 10250)
			if proxy.CodeOf(err) == proxy.CodeMemory {
				return false
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		return true
	})
	eventually(t, "all rest", func() bool { return s.live.Memory() <= 2*streams*32<<10 })
	echo := func(c net.Conn, n int) error {
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		go func() { _, _ = c.Write(make([]byte, n)) }()
		_, err := io.ReadFull(c, make([]byte, n))
		return err
	}
	for i, c := range all {
		if err := echo(c, 2000); err != nil {
			t.Fatalf("stream %d after its rest: %v", i, err)
		}
	}
	eventually(t, "all rest again", func() bool { return s.live.Memory() <= 2*streams*32<<10 })
	for _, c := range all[10:40] { // what comes back is not read
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
		go func() { _, _ = c.Write(make([]byte, 8<<20)) }()
	}
	eventually(t, "some are broken off", func() bool { return s.counters.Snapshot().Ended[proxy.EndMemory] > 0 })
	eventually(t, "the bound is kept", func() bool { return s.live.Memory() <= budget })
	for i, c := range append(all[:10:10], all[40:]...) {
		if err := echo(c, 1000); err != nil {
			t.Fatalf("stream %d beside those that stalled: %v", i, err)
		}
	}
	for _, c := range all {
		_ = c.Close()
	}
	eventually(t, "all is given back", func() bool { return s.live.Memory() == 0 && s.live.Len() == 0 })
}

// moved is what went through all streams.
func (s *stalling) moved() uint64 {
	var n uint64
	for _, i := range s.live.List() {
		n += i.Up + i.Down
	}
	return n
}

package channel_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"corax/control"
	"corax/dataplane"
	"corax/dataplane/netstack"
	"corax/proxy"
	"corax/proxy/channel"
	"corax/proxy/edge"
	"corax/proxy/proxytest"
	"corax/proxy/splice"
)

// overlay joins stacks by the destination of their packets.
type overlay struct {
	mu     sync.RWMutex
	stacks map[netip.Addr]*netstack.Stack
}

func (o *overlay) Send(batch []dataplane.Packet) {
	for from := 0; from < len(batch); {
		to := [16]byte(batch[from].Data[24:40])
		end := from + 1
		for end < len(batch) && [16]byte(batch[end].Data[24:40]) == to {
			end++
		}
		o.mu.RLock()
		s := o.stacks[netip.AddrFrom16(to)]
		o.mu.RUnlock()
		if s != nil {
			s.Send(batch[from:end])
		}
		from = end
	}
}

// mesh is a cloud front and two edges with the same node IP, over real stacks.
type mesh struct {
	overlay  *overlay
	add      func(t testing.TB, a netip.Addr) *netstack.Stack
	channel  *channel.Channel
	live     [2]*proxy.Live
	counters [2]*proxy.Counters
}

const nodeIP = "192.168.1.1"

func newMesh(t testing.TB) *mesh {
	t.Helper()
	m := &mesh{overlay: &overlay{stacks: map[netip.Addr]*netstack.Stack{}}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	m.add = func(t testing.TB, a netip.Addr) *netstack.Stack {
		t.Helper()
		s, err := netstack.New(netstack.Config{Overlay: a, Send: m.overlay})
		if err != nil {
			t.Fatal(err)
		}
		m.overlay.mu.Lock()
		m.overlay.stacks[a] = s
		m.overlay.mu.Unlock()
		wg.Go(func() { _ = s.Run(ctx) })
		return s
	}
	var nodes []control.ProxyNode
	for i, g := range []netip.Addr{g1, g2} {
		s := m.add(t, g)
		l, err := s.ListenTCP(proxy.OverlayPort)
		if err != nil {
			t.Fatal(err)
		}
		kubelet := serve(t, fmt.Sprintf("node-%d", i+1))
		m.live[i], m.counters[i] = proxy.NewLive(proxy.Limits{Streams: 20000, PerCaller: 20000}), new(proxy.Counters)
		e, err := edge.New(edge.Config{
			Listener: l, Live: m.live[i], Counters: m.counters[i],
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				if address != nodeIP+":10250" {
					return nil, errors.New("connection refused")
				}
				var d net.Dialer
				return d.DialContext(ctx, network, kubelet)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		name, gateway := fmt.Sprintf("node-%d", i+1), fmt.Sprintf("edge-%d", i+1)
		own := control.ProxyNode{Name: name, Gateway: gateway, IP: netip.MustParseAddr(nodeIP), Own: true, Ports: []uint16{10250}}
		e.Apply(control.Proxy{Edge: true, Callers: []netip.Addr{g3}, Ports: own.Ports, Nodes: []control.ProxyNode{own}}, nil)
		wg.Go(func() { _ = e.Run(ctx) })
		own.Own, own.Via, own.Ports = false, []netip.Addr{g}, []uint16{22, 10250}
		nodes = append(nodes, own)
	}
	var err error
	m.channel, err = channel.New(channel.Config{Overlay: m.add(t, g3).DialTCP})
	if err != nil {
		t.Fatal(err)
	}
	m.channel.Apply(nodes)
	return m
}

// serve is a node's port: it says its name, then gives back what it gets.
func serve(t testing.TB, name string) string {
	t.Helper()
	return proxytest.TCP(t, func(c net.Conn) {
		_, _ = io.WriteString(c, name+"\n")
		if _, bench := t.(*testing.B); bench {
			flood(c)
			return
		}
		// Neither pipes of the kernel, which io.Copy keeps, nor much memory.
		_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 1<<10))
	}).String()
}

// flood takes all, or sends without end, as the first byte says.
func flood(c net.Conn) {
	block := make([]byte, 64<<10)
	n, err := c.Read(block[:1])
	for take := n == 1 && block[0] == 1; err == nil; {
		if take {
			_, err = c.Read(block)
		} else {
			_, err = c.Write(block)
		}
	}
}

// open dials a node and reads its name.
func (m *mesh) open(t testing.TB, node string) (*channel.Conn, *bufio.Reader) {
	t.Helper()
	c, err := m.channel.Dial(context.Background(), proxy.Target{Node: node, Port: 10250})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(c)
	if name, err := r.ReadString('\n'); err != nil || name != node+"\n" {
		t.Fatalf("%s answered for %s: %v", name, node, err)
	}
	return c.(*channel.Conn), r
}

func TestRightNodeOverTheOverlay(t *testing.T) {
	m := newMesh(t)
	data := make([]byte, transferBytes)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	for _, node := range []string{"node-1", "node-2"} {
		c, r := m.open(t, node)
		go func() {
			_, _ = c.Write(data)
			_ = c.CloseWrite()
		}()
		h := sha256.New()
		n, err := io.Copy(h, r)
		if err != nil || n != int64(len(data)) || [32]byte(h.Sum(nil)) != sha256.Sum256(data) {
			t.Errorf("%s gave back %d bytes, %v", node, n, err)
		}
		_ = c.Close()
	}
	if _, err := m.channel.Dial(t.Context(), proxy.Target{Node: "node-1", Port: 22}); proxy.CodeOf(err) != proxy.CodePort {
		t.Errorf("a port that only the front believes in: %v", err)
	}
	if n := m.counters[0].Snapshot().Refused[proxy.CodePort]; n != 1 {
		t.Errorf("the edge counted %d refusals", n)
	}
}

// A gateway node that is gone from the objects takes its streams with it, and no
// others; one that is only no longer asked does not.
func TestReach(t *testing.T) {
	m := newMesh(t)
	one, r1 := m.open(t, "node-1")
	two, r2 := m.open(t, "node-2")
	defer one.Close()
	defer two.Close()
	m.channel.Apply(nil)
	m.channel.Reach([]netip.Addr{g1, g2})
	echo := func(c net.Conn, r io.Reader) error {
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(r, make([]byte, 1))
		return err
	}
	if err := errors.Join(echo(one, r1), echo(two, r2)); err != nil {
		t.Fatalf("a stream was cut that works: %v", err)
	}
	m.channel.Reach([]netip.Addr{g2})
	if _, err := r1.ReadByte(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the stream over a gateway node that is gone: %v", err)
	}
	if err := echo(two, r2); err != nil {
		t.Errorf("another stream: %v", err)
	}
	eventually(t, "the edge's end ends", func() bool { return m.live[0].Len() == 0 })
}

// An edge may not ask another edge.
func TestEdgeMayNotAsk(t *testing.T) {
	m := newMesh(t)
	m.overlay.mu.RLock()
	s := m.overlay.stacks[g1]
	m.overlay.mu.RUnlock()
	c, err := channel.New(channel.Config{Overlay: s.DialTCP})
	if err != nil {
		t.Fatal(err)
	}
	c.Apply([]control.ProxyNode{{Name: "node-2", Gateway: "edge-2", Via: []netip.Addr{g2}, Ports: []uint16{10250}}})
	for range 100 { // the refusal always arrives: it is not overtaken by a reset
		if _, err := c.Dial(t.Context(), proxy.Target{Node: "node-2", Port: 10250}); proxy.CodeOf(err) != proxy.CodeCaller {
			t.Fatal(err)
		}
	}
	if n := m.counters[1].Snapshot().Refused[proxy.CodeCaller]; n != 100 {
		t.Errorf("the edge counted %d refusals", n)
	}
}

func TestManyStreamsLeaveNothing(t *testing.T) {
	m := newMesh(t)
	const streams = manyStreams
	c, _ := m.open(t, "node-1")
	_ = c.Close()
	drained := func() bool { return m.live[0].Len()+m.live[1].Len() == 0 }
	eventually(t, "the first stream ends", drained)
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	work := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range work {
				node := fmt.Sprintf("node-%d", i%2+1)
				c, err := m.channel.Dial(context.Background(), proxy.Target{Node: node, Port: 10250})
				if err != nil {
					t.Error(err)
					continue
				}
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				switch i % 3 {
				case 0: // as it should be
					_ = c.(*channel.Conn).CloseWrite()
					if all, err := io.ReadAll(c); err != nil || string(all) != node+"\n" {
						t.Errorf("%q, %v", all, err)
					}
				case 1: // gone before the first byte
				case 2: // broken off
					_, _ = c.Read(make([]byte, 1))
					splice.Abort(c)
				}
				_ = c.Close()
			}
		})
	}
	for i := range streams {
		work <- i
	}
	close(work)
	wg.Wait()
	eventually(t, "all streams end", drained)
	eventually(t, "goroutines are as before", func() bool { return runtime.NumGoroutine() <= goroutines+5 })
	eventually(t, "descriptors are as before", func() bool { return descriptors(t) <= files+5 })
	if n := m.counters[0].Snapshot().Requests["edge"] + m.counters[1].Snapshot().Requests["edge"]; n != streams+1 {
		t.Errorf("%d of %d streams were served", n-1, streams)
	}
}

// Both ends of a stream at rest, the test's own sockets included, hold less than one
// end may.
func TestMemoryOfStreamsAtRest(t *testing.T) {
	m := newMesh(t)
	const streams = restStreams
	c, _ := m.open(t, "node-1")
	_ = c.Close()
	before := used()
	var all []*channel.Conn
	for i := range streams {
		c, r := m.open(t, fmt.Sprintf("node-%d", i%2+1))
		if _, err := c.Write(make([]byte, 32<<10)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 32<<10)); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	each := uint64(0)
	eventually(t, "buffers are given back", func() bool {
		each = (used() - min(before, used())) / streams
		return each < 64<<10
	})
	t.Logf("%d KB per stream at rest, both ends and the node", each>>10)
	for _, c := range all {
		_ = c.Close()
	}
}

func used() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("descriptors cannot be counted: %v", err)
	}
	return len(all)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			buf := make([]byte, 1<<20)
			t.Fatalf("not within 20 s: %s\n%s", what, buf[:min(20000, runtime.Stack(buf, true))])
		}
	}
}

func BenchmarkOverlay(b *testing.B) {
	m := newMesh(b)
	b.Run("dial", func(b *testing.B) {
		for b.Loop() {
			c, _ := m.open(b, "node-1")
			_ = c.Close()
		}
	})
	for name, n := range map[string]int{"up": 1, "down": 0} {
		b.Run(name, func(b *testing.B) {
			c, _ := m.open(b, "node-1")
			defer c.Close()
			_ = c.SetDeadline(time.Time{})
			_, _ = c.Write([]byte{byte(n)})
			block := make([]byte, 64<<10)
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				var err error
				if n == 1 {
					_, err = c.Write(block)
				} else {
					_, err = io.ReadFull(c, block)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package wg

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane"
	"corax/dataplane/internal/udpbatch"
	"corax/dataplane/key"
)

// newTestReceiver returns a receiver that knows n peers, each with a session
// and a path, and a data message over the path of each.
func newTestReceiver(n int) (*receiver, []*udpbatch.Datagram) {
	b := newTestBind()
	r := newReceiver(b, nil, nil)
	local := netip.MustParseAddr("192.0.2.200")
	var grams []*udpbatch.Datagram
	for i := range n {
		p := b.table.add(key.Public{byte(i), byte(i >> 8), 1})
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 4500)
		b.table.setPath(p, directPath(from, local, 0), nil)
		b.table.note(p, uint32(i+1))
		m := message(1452, 4)
		binary.LittleEndian.PutUint32(m[offReceiver:], uint32(i+1))
		grams = append(grams, &udpbatch.Datagram{Data: m, From: from, Local: local})
	}
	return r, grams
}

// accept returns the endpoint of a datagram.
func accept(r *receiver, g *udpbatch.Datagram) conn.Endpoint {
	_, ep := r.direct(g.Data, g.From, g.Local, 0)
	return ep
}

func TestEndpointLookup(t *testing.T) {
	r, grams := newTestReceiver(3)
	for i, g := range grams {
		p, _ := r.b.table.session(uint32(i + 1))
		r.now = int64(i + 1)
		for range 2 { // the second answer is the kept one
			if ep := accept(r, g); ep != conn.Endpoint(p) {
				t.Fatalf("endpoint %v, want the peer itself", ep)
			}
		}
		if p.heard.Load() != r.now || p.path.Load().heard.Load() != r.now {
			t.Error("the arrival was not noted")
		}
	}

	// From elsewhere: one source for all, and the path hears nothing.
	g := *grams[0]
	p, _ := r.b.table.session(1)
	g.From = addr("203.0.113.1:9")
	r.now = 100
	s, ok := accept(r, &g).(*source)
	if !ok || s.to != g.From || s.DstToString() != "203.0.113.1:9" || s.peer.Load() != p {
		t.Fatalf("source %+v", s)
	}
	accept(r, grams[1])
	if again := accept(r, &g); again != conn.Endpoint(s) {
		t.Error("another source for the same address")
	}
	if p.path.Load().heard.Load() == 100 {
		t.Error("the path counts what came from elsewhere")
	}

	// The kept answer does not outlive a change of path or session.
	accept(r, grams[1])
	q, _ := r.b.table.session(2)
	r.b.table.setPath(q, directPath(addr("203.0.113.2:9"), netip.Addr{}, 0), nil)
	if _, ok := accept(r, grams[1]).(*source); !ok {
		t.Error("the old path still counts as proven")
	}
	r.b.table.remove(q)
	if ep := accept(r, grams[1]); ep != nil {
		t.Error("a removed peer still has its session")
	}
}

func TestReceiveAllocs(t *testing.T) {
	r, grams := newTestReceiver(2)
	elsewhere := *grams[0]
	elsewhere.From = addr("203.0.113.1:9")
	accept(r, &elsewhere)
	for name, mix := range map[string][]*udpbatch.Datagram{
		"one peer": grams[:1], "two peers": grams, "elsewhere": {&elsewhere, grams[1]},
	} {
		if n := testing.AllocsPerRun(200, func() {
			for _, g := range mix {
				accept(r, g)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestSendAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a := newNode(t, "10.0.0.1")
	to := localAddr(rawSocket(t))
	p := a.table.add(key.Public{1})
	a.table.setPath(p, directPath(to, netip.Addr{}, 0), nil)
	used := directSource(to, netip.Addr{}, 0, p)
	bufs := [][]byte{message(1452, 4), message(1452, 4), message(700, 4)}
	for _, ep := range []conn.Endpoint{p, used} {
		send := func() {
			if err := a.bind.Send(bufs, ep); err != nil {
				t.Fatal(err)
			}
		}
		send()
		if n := testing.AllocsPerRun(200, send); n != 0 {
			t.Errorf("%T: %v allocations", ep, n)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	m := message(1452, 4)
	for b.Loop() {
		Classify(m)
	}
}

func BenchmarkEndpoint(b *testing.B) {
	for _, c := range []struct {
		name  string
		peers int
	}{{"run of one peer", 1}, {"1000 peers in turn", 1000}} {
		b.Run(c.name, func(b *testing.B) {
			r, grams := newTestReceiver(c.peers)
			i := 0
			for b.Loop() {
				accept(r, grams[i])
				if i++; i == len(grams) {
					i = 0
				}
			}
		})
	}
}

func BenchmarkOpenInitiation(b *testing.B) {
	us := newKey(b)
	o := newOpener(us)
	m := initiation(b, newKey(b), us.Public(), 1)
	for b.Loop() {
		o.static(m)
	}
}

func newBenchDevice(b *testing.B, recv dataplane.Sender) *Device {
	b.Helper()
	d, err := New(Config{PrivateKey: newKey(b), MTU: dataplane.DefaultMTU, Receive: recv})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Run(b.Context()) }()
	b.Cleanup(func() {
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	for !d.link.open.Load() {
		select {
		case err := <-done:
			b.Fatal(err)
		default:
		}
	}
	return d
}

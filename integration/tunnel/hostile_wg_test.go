//go:build linux

package tunnel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	tunnelPort = 4500
	wgHeaders  = 14 + 20 + 8 // of Ethernet, IPv4 and UDP
)

// mallory is a host on the WAN.
type mallory struct {
	*faults
	*spoofer
	hubAt, own netip.AddrPort
	answers    *lab.Capture
}

func newMallory(t *testing.T, f *faults) *mallory {
	t.Helper()
	h := f.Lab.Host("mallory")
	h.Attach(f.WAN, "eth0", netip.MustParsePrefix("203.0.113.66/25"))
	h.Route(lab.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("203.0.113.1")})
	answers, err := h.Capture("eth0", func(p lab.Frame) bool { return !p.Outgoing && p.SrcPort == tunnelPort })
	if err != nil {
		t.Fatal(err)
	}
	return &mallory{
		faults: f, answers: answers, spoofer: newSpoofer(t, h),
		hubAt: netip.AddrPortFrom(f.cloud().Gateway().IP, tunnelPort),
		own:   netip.MustParseAddrPort("203.0.113.66:4500"),
	}
}

// little is a WireGuard message of a type, with an index at an offset.
func little(kind byte, size, at int, index uint32) []byte {
	b := bytes.Repeat([]byte{0x5a}, size)
	copy(b, []byte{kind, 0, 0, 0})
	binary.LittleEndian.PutUint32(b[at:], index)
	return b
}

// TestHostileWireGuard sends to the hub's tunnel port what no peer would: each
// datagram is counted once under its reason, and neither the session nor the
// path of the peer moves.
func TestHostileWireGuard(t *testing.T) {
	f := prepareFaults(t, lab.Options{})
	// What goes from the edge to the hub, for replays.
	wan, err := f.edge().Router.Capture("wan", func(p lab.Frame) bool {
		return p.Outgoing && p.DstPort == tunnelPort && p.Len == len(p.Data)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range f.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	f.ready(ctx)
	f.startFlow(ctx)
	m := newMallory(t, f)

	hub := rawKey(t, f.status(f.hub()).PublicKey)
	edge := rawKey(t, f.status(f.edge().Agents[0]).PublicKey)
	edgeName := f.edge().Gateway().Name
	f.await(t, f.hub(), 20*time.Second, pathKind(edgeName, "direct"))
	before := f.status(f.hub()).Peer(edgeName)
	edgeAt := netip.MustParseAddrPort(before.Path.Endpoint)
	initiation, data := replays(ctx, t, wan)
	for _, tt := range []struct {
		name, reason string
		from         netip.AddrPort
		b            []byte
	}{
		{"nothing", "unknown", m.own, nil},
		{"text", "unknown", m.own, []byte("GET / HTTP/1.1\r\nHost: corax\r\n\r\n")},
		{"an initiation of another length", "unknown", m.own, forge(t, hub, nil)[:147]},
		{"a message without room for its tag", "unknown", m.own, little(4, 31, 4, 1)},
		{"a reserved byte", "unknown", m.own, with(forge(t, hub, nil), 1, 1)},
		{"data of no session", "unknown_index", m.own, little(4, 96, 4, 0xdeadbeef)},
		{"data of no session, from the peer's address", "unknown_index", edgeAt, little(4, 96, 4, 0xdeadbeef)},
		{"a response to nothing", "unknown_index", m.own, little(2, 92, 8, 0xdeadbeef)},
		{"a cookie for nothing", "unknown_index", m.own, little(3, 64, 4, 0xdeadbeef)},
		{"an initiation for another key", "mac1", m.own, forge(t, edge, nil)},
		{"a garbled initiation", "initiation", m.own, forge(t, hub, nil)},
		{"an initiation of a stranger", "unknown_peer", m.own, forge(t, hub, bytes.Repeat([]byte{9}, 32))},
		{"an initiation in the name of the peer", "initiation", m.own, forge(t, hub, edge)},
		{"the same from the peer's address", "initiation", edgeAt, forge(t, hub, edge)},
		{"a replayed initiation", "replay", m.own, initiation},
		{"a relay frame", "unknown_label", m.own, append([]byte{0xc5, 1, 2, 3, 4, 5, 6, 7}, data...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.countsOnce(t, f.hub(), "wg_drop_total{"+tt.reason+"}", func() { m.send(tt.from, m.hubAt, tt.b) })
		})
	}

	// A replay of data has no counter: WireGuard drops it without a word.
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 10 {
		m.send(m.own, m.hubAt, data)
		m.send(m.own, m.hubAt, with(data, 40, data[40]^1))
		// What the hub sends next goes to the peer as before.
		if _, err := f.cloud().Nodes[0].Pods[0].PingUntil(ctx, f.edge().Nodes[0].Pods[0].IP, lab.PingOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		m.send(edgeAt, m.hubAt, with(data, 40, data[40]^1))
	}
	f.await(t, f.hub(), 10*time.Second, lab.Reached(edgeName))
	f.undisturbed()
	if n := m.answers.Count(); n != 0 {
		t.Errorf("the hub sent %d datagrams to a stranger", n)
	}
	after := f.status(f.hub()).Peer(edgeName)
	if after.Path.Endpoint != before.Path.Endpoint || after.Path.Kind != "direct" {
		t.Errorf("the path moved from %+v to %+v", before.Path, after.Path)
	}
}

// replays picks an initiation and a small data message out of what an edge sent.
func replays(ctx context.Context, t *testing.T, c *lab.Capture) (initiation, data []byte) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for { // what was sent before the path was direct may have gone by TLS
		for _, f := range c.Frames() {
			switch b := f.Data[wgHeaders:]; {
			case len(b) == 148 && b[0] == 1:
				initiation = b
			case b[0] == 4 && len(b) > 41:
				data = b
			}
		}
		if initiation != nil && data != nil {
			return initiation, data
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("captured: initiation %t, data %t", initiation != nil, data != nil)
		}
	}
}

// startFlood sends datagrams in turn, from many addresses, until stop is called,
// or the test ends: at most 20,000 a second, since the agents have to share the
// processors with it. stop returns how many were sent.
func (m *mallory) startFlood(datagrams [][]byte) (stop func() int) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	n := 0
	wg.Go(func() { n = m.flood(done, datagrams) })
	stop = sync.OnceValue(func() int {
		close(done)
		wg.Wait()
		return n
	})
	m.faults.t.Cleanup(func() { stop() })
	return stop
}

func (m *mallory) flood(done <-chan struct{}, datagrams [][]byte) (n int) {
	random := rand.New(rand.NewPCG(3, 4))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for range 200 {
			from := netip.AddrFrom4([4]byte{198, 51, byte(random.Uint32()), byte(random.Uint32())})
			m.send(netip.AddrPortFrom(from, uint16(random.Uint32())), m.hubAt, datagrams[n%len(datagrams)])
			n++
		}
		select {
		case <-done:
			return n
		case <-tick.C:
		}
	}
}

// TestHostileWireGuardFlood sends forged initiations from many addresses, faster
// than an agent can open them: a peer whose agent starts anew gets through all the same,
// memory stays where it was and the agent answers.
func TestHostileWireGuardFlood(t *testing.T) {
	f := newFaults(t, lab.Options{Edges: 2})
	m := newMallory(t, f)
	hub := rawKey(t, f.status(f.hub()).PublicKey)
	forged := [][]byte{forge(t, hub, nil), forge(t, hub, rawKey(t, f.status(f.edge().Agents[0]).PublicKey)), little(4, 96, 4, 7)}
	before := resident(t, f.hub().Process())

	stop := m.startFlood(forged)
	f.await(t, f.hub(), 10*time.Second, counted("wg_drop_total{initiation}", 100))
	other := f.Domains[2]
	if err := other.Agents[0].Restart(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
	defer cancel()
	if _, err := other.Nodes[1].Pods[0].PingUntil(ctx, f.cloud().Nodes[1].Pods[0].IP, lab.PingOptions{}); err != nil {
		t.Errorf("a new session under the flood: %v", err)
	}
	f.status(f.hub())
	t.Logf("%d datagrams", stop())
	f.bounded(t, f.hub(), before)
}

// TestSoakWireGuardFlood is the flood for ten minutes: after the first two, memory
// stays flat.
func TestSoakWireGuardFlood(t *testing.T) {
	if os.Getenv("CORAX_SOAK") == "" {
		t.Skip("CORAX_SOAK is not set; TestHostileWireGuardFlood is the short form")
	}
	f := newFaults(t, lab.Options{})
	m := newMallory(t, f)
	hub := rawKey(t, f.status(f.hub()).PublicKey)
	forged := [][]byte{forge(t, hub, nil), forge(t, hub, rawKey(t, f.status(f.edge().Agents[0]).PublicKey)), little(4, 96, 4, 7)}
	stop := m.startFlood(forged)
	var warm int64
	for minute := range 10 {
		<-time.After(time.Minute)
		now := resident(t, f.hub().Process())
		t.Logf("minute %d: %d MB", minute+1, now>>20)
		if minute == 1 {
			warm = now
		}
		if minute > 1 && now > warm+16<<20 {
			t.Errorf("%d MB after %d minutes, %d MB after two", now>>20, minute+1, warm>>20)
		}
		f.undisturbed()
		f.status(f.hub())
	}
	t.Logf("%d datagrams", stop())
}

// TestLyingPeer has the agent of an edge believe that it owns a subnet of
// somebody else: what its pods send from there is dropped by the hub, and what
// is theirs goes on.
func TestLyingPeer(t *testing.T) {
	f := newFaults(t, lab.Options{Edges: 2})
	liar, stolen := f.Domains[2], f.edge().Nodes[1].Subnets
	own := filepath.Join(f.Lab.Dir(), "lies")
	if err := os.CopyFS(own, os.DirFS(f.Gateways)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(own, "edge-a.yaml")); err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{liar.Nodes[0].Name: f.status(liar.Agents[0]).PublicKey}
	// Whose pods send: those of a node that has no TUN cannot.
	thief := 0
	if liar.Nodes[0].Detoured() {
		thief = 1
	}
	g := f.Object(liar, keys)
	g.Nodes[thief].Subnets = append(g.Nodes[thief].Subnets, stolen...)
	if err := g.Write(own); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, a := range liar.Agents[:thief+1] {
		a.SetArgs("--gateways", own)
		if err := errors.Join(a.Restart(), a.WaitReady(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	pod, to := liar.Nodes[thief].Pods[0], f.cloud().Nodes[1].Pods[0]
	if _, err := pod.PingUntil(ctx, to.IP, lab.PingOptions{}); err != nil {
		t.Fatalf("what is the peer's own does not pass: %v", err)
	}
	for _, s := range stolen {
		addr := s.Masked().Addr().Next().Next().Next().Next()
		pod.AddAddr("eth0", netip.PrefixFrom(addr, addr.BitLen()))
		dst := to.IP
		if addr.Is6() {
			dst = to.IP6
		}
		seen, err := to.Capture("eth0", func(p lab.Frame) bool { return p.Src == addr })
		if err != nil {
			t.Fatal(err)
		}
		counter := "wg_drop_total{source}"
		old := f.status(f.hub()).Counters[counter]
		once, cancel := context.WithTimeout(ctx, time.Second)
		if _, err := pod.Ping(once, dst, lab.PingOptions{From: addr}); err == nil {
			t.Errorf("%v was answered", addr)
		}
		cancel()
		f.await(t, f.hub(), 10*time.Second, counted(counter, old+1))
		if n := seen.Count(); n != 0 {
			t.Errorf("%d packets arrived from %v", n, addr)
		}
	}
	if _, err := pod.PingUntil(ctx, to.IP, lab.PingOptions{}); err != nil {
		t.Errorf("what is the peer's own does not pass: %v", err)
	}
}

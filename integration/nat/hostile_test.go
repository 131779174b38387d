//go:build linux

package nat_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

const (
	// hostilePause is how long a transfer may pause on a busy machine.
	hostilePause = 5 * time.Second
	// hostileMemory is what an agent may take under load, in bytes, unless it
	// took half of that before, built with the race detector.
	hostileMemory = 150 << 20
)

// counted makes a function for Agent.WaitStatus: the counter has grown to n.
func counted(name string, n uint64) func(*lab.Status) error {
	return func(s *lab.Status) error {
		if got := s.Counters[name]; got < n {
			return fmt.Errorf("%s is %d, want %d", name, got, n)
		}
		return nil
	}
}

// dropped is the sum of all drop counters.
func dropped(s *lab.Status) (sum uint64) {
	for _, n := range s.Counters {
		sum += n
	}
	return sum
}

// undisturbed checks a flow that nothing may disturb.
func undisturbed(t *testing.T, f *lab.Flow) {
	t.Helper()
	if r, err := f.Result(); err != nil || r.Longest > hostilePause {
		t.Errorf("a bystander's transfer paused for %v, error %v", r.Longest, err)
	}
}

// TestForgedSTUN sends to an edge, in the name of its hub and of its peer, answers to
// nothing and probes without the key: neither what it thinks of its NAT nor its path
// moves, and nobody who is named gets a packet.
func TestForgedSTUN(t *testing.T) {
	n := start(t, lab.InternetOptions{Sites: openable()})
	f := n.flow("a", "b")
	if err := n.awaitPath(20*time.Second, "a", "b", "direct"); err != nil {
		t.Fatal(err)
	}
	f.Reset()
	m := newMallory(t, n)
	victim := netip.MustParseAddrPort("203.0.113.67:9999")
	m.AddAddr("eth0", netip.PrefixFrom(victim.Addr(), 24))
	hit := capture(t, m.Host, "eth0", func(f lab.Frame) bool {
		return !f.Outgoing && f.Protocol == unix.IPPROTO_UDP && f.Dst == victim.Addr()
	})
	before := n.peer("a", "b")
	// Where b, and so everybody who says that he is b, reaches a.
	a, err := netip.ParseAddrPort(n.peer("b", "a").Path.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	fromPeer, err := netip.ParseAddrPort(before.Path.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	drops := dropped(n.status("a"))
	const times = 500
	username := attribute{attrUsername, []byte("0123456789abcdef:fedcba9876543210")}
	for range times {
		m.send(fromPeer, a, message(bindingSuccess, xorMapped(victim)))
		m.send(fromPeer, a, message(bindingSuccess, xorMapped(victim), attribute{attrIntegrity256, make([]byte, 32)}))
		m.send(fromPeer, a, message(bindingRequest, username, attribute{attrIntegrity256, make([]byte, 32)}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = n.agent("a").WaitStatus(ctx, func(s *lab.Status) error {
		if got := dropped(s); got < drops+times {
			return fmt.Errorf("%d drops were counted after %d forged messages", got-drops, 3*times)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := moves(ctx, f, 50); err != nil {
		t.Error(err)
	}
	undisturbed(t, f)
	if after := n.peer("a", "b"); after.Path.Kind != "direct" || after.Path.Endpoint != before.Path.Endpoint {
		t.Errorf("the path moved from %+v to %+v", before.Path, after.Path)
	}
	if k := hit.Count(); k > 0 {
		t.Errorf("%d packets went to the address that the forger named", k)
	}
}

// TestNamedThirdParty has a site name addresses that are not its own, as its
// public one and on its node: the peer may try them, a little.
func TestNamedThirdParty(t *testing.T) {
	n := prepare(t, lab.InternetOptions{Sites: openable()})
	m := newMallory(t, n)
	victims := []netip.Addr{netip.MustParseAddr("203.0.113.67"), netip.MustParseAddr("203.0.113.68")}
	for _, v := range victims {
		m.AddAddr("eth0", netip.PrefixFrom(v, 24))
	}
	var mu sync.Mutex
	bytes := 0
	hit := capture(t, m.Host, "eth0", func(f lab.Frame) bool {
		ours := !f.Outgoing && f.Protocol == unix.IPPROTO_UDP && (f.Dst == victims[0] || f.Dst == victims[1])
		if ours {
			mu.Lock()
			bytes += f.Len
			mu.Unlock()
		}
		return ours
	})
	b := n.domain("b")
	b.Gateway().AddAddr("lo", netip.PrefixFrom(victims[1], 32))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	key, err := b.Agents[0].Key(ctx)
	if err != nil {
		t.Fatal(err)
	}
	g := n.Object(b, map[string]string{b.Gateway().Name: key})
	g.Endpoints[0].PublicIP = victims[0]
	if err := g.Write(n.Gateways); err != nil {
		t.Fatal(err)
	}
	n.run()
	f := n.flow("a", "b")
	if err := n.awaitPath(20*time.Second, "a", "b", "direct"); err != nil {
		t.Error(err)
	}
	if err := moves(ctx, f, 250); err != nil { // five seconds
		t.Error(err)
	}
	k := hit.Count()
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d packets, %d bytes went to third parties", k, bytes)
	if k > 200 || bytes > 64<<10 {
		t.Errorf("%d packets, %d bytes went to third parties", k, bytes)
	}
}

// TestHubFlood sends to a hub more than it can look at, from everywhere: a
// transfer that it relays goes on, an agent that starts anew gets through, and
// memory stays where it was.
func TestHubFlood(t *testing.T) {
	n := start(t, lab.InternetOptions{Sites: pairOfSites(random, random)()})
	f := n.flow("a", "b")
	if err := n.awaitPath(20*time.Second, "a", "b", "relay"); err != nil {
		t.Fatal(err)
	}
	f.Reset()
	before := resident(t, n.agent("hub").Process())
	m := newMallory(t, n)
	stop := m.flood(netip.AddrPortFrom(n.domain("hub").Gateway().IP, tunnel))
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	if err := moves(ctx, f, 150); err != nil { // three seconds
		t.Error(err)
	}
	undisturbed(t, f)
	err := n.agent("b").Restart()
	if err != nil {
		t.Error(err)
	}
	if err = n.agent("b").WaitReady(ctx); err != nil {
		t.Error(err)
	}
	if n.pod("a").Detoured() { // and cannot ping
		_, err = n.pod("a").EchoUDP(ctx, n.at("b"), 100)
	} else {
		_, err = n.pod("a").PingUntil(ctx, n.pod("b").IP, lab.PingOptions{})
	}
	if err != nil {
		t.Errorf("an agent that starts under the flood: %v", err)
	}
	n.status("hub")
	t.Logf("%d datagrams", stop())
	after, limit := resident(t, n.agent("hub").Process()), int64(hostileMemory)
	if before > hostileMemory/2 {
		limit = 4 * before
	}
	t.Logf("memory: %d MB, %d MB before", after>>20, before>>20)
	if after > limit {
		t.Errorf("the hub takes %d MB", after>>20)
	}
}

// flood sends forged probes, STUN requests, answers and relay frames from random
// addresses, until the result is called, which returns how many.
func (m *mallory) flood(to netip.AddrPort) func() int {
	done := make(chan struct{})
	var wg sync.WaitGroup
	var sent int
	username := attribute{attrUsername, []byte("0123456789abcdef:fedcba9876543210")}
	kinds := [][]byte{
		message(bindingRequest),
		message(bindingRequest, username, attribute{attrIntegrity256, make([]byte, 32)}),
		message(bindingSuccess, xorMapped(m.own)),
		append([]byte{0xc5, 1, 2, 3, 4, 5, 6, 7, 4, 0, 0, 0}, make([]byte, 100)...),
		append([]byte{4, 0, 0, 0}, make([]byte, 100)...),
	}
	wg.Go(func() {
		random := rand.New(rand.NewPCG(5, 6))
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			for range 200 {
				from := netip.AddrFrom4([4]byte{198, 51, byte(random.Uint32()), byte(random.Uint32())})
				b := kinds[sent%len(kinds)]
				if b[0] == 0xc5 {
					b[1+random.IntN(7)] = byte(random.Uint32())
				}
				m.send(netip.AddrPortFrom(from, uint16(random.Uint32())), to, b)
				sent++
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	stop := sync.OnceValue(func() int {
		close(done)
		wg.Wait()
		return sent
	})
	m.t.Cleanup(func() { stop() })
	return stop
}

// TestTLSFlood holds connections to a hub's TLS port open that never prove a key:
// an edge that can only use that port gets through.
func TestTLSFlood(t *testing.T) {
	n := start(t, lab.InternetOptions{Sites: []lab.Site{
		{Name: "hub", Hub: true},
		{Name: "a", NATs: []lab.NAT{{Mapping: lab.MapKeepPort, BlockUDP: true, V6: lab.V6Block}}},
	}})
	m := newMallory(t, n)
	at := netip.AddrPortFrom(n.domain("hub").Gateway().IP, fallback)
	before := resident(t, n.agent("hub").Process())
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	open := 0
	for range 500 {
		once, cancel := context.WithTimeout(ctx, time.Second)
		c, err := m.DialTCP(once, at)
		cancel()
		if err != nil {
			break // the hub takes no more
		}
		open++
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Logf("%d connections", open)
	if err := n.agent("a").Restart(); err != nil {
		t.Fatal(err)
	}
	if err := n.agent("a").WaitStatus(ctx, lab.OnPath("hub-gw", "relay-tls")); err != nil {
		t.Error(err)
	}
	if after := resident(t, n.agent("hub").Process()); after > max(int64(hostileMemory), 4*before) {
		t.Errorf("the hub takes %d MB", after>>20)
	}
}

// resident returns the memory of a process in bytes.
func resident(t *testing.T, p *lab.Process) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

package wg

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

// patience bounds every wait for something that must happen. It never decides
// how fast.
const patience = 60 * time.Second

// node is a Device under test and what came out of it.
type node struct {
	*Device
	key  key.Private
	ip   netip.Addr
	got  chan []byte
	logs *lockedBuffer
	stop func() error // ends Run and returns its error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newNode starts a Device with the inner address ip.
func newNode(t *testing.T, ip string, change ...func(*Config)) *node {
	t.Helper()
	priv, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	return startNode(t, priv, ip, change...)
}

func startNode(t *testing.T, priv key.Private, ip string, change ...func(*Config)) *node {
	t.Helper()
	n := &node{key: priv, ip: netip.MustParseAddr(ip), got: make(chan []byte, 4096), logs: new(lockedBuffer)}
	cfg := Config{
		Log:        slog.New(slog.NewTextHandler(n.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		PrivateKey: priv,
		MTU:        dataplane.DefaultMTU,
		Receive: dataplane.SenderFunc(func(batch []dataplane.Packet) {
			for _, p := range batch {
				select {
				case n.got <- bytes.Clone(p.Data):
				default:
				}
			}
		}),
	}
	for _, f := range change {
		f(&cfg)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Device = d
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	n.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("Run does not return")
		}
	})
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "device does not come up", func() bool { return d.link.open.Load() })
	return n
}

// eventually polls until ok; for state that has no channel to wait on.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		<-tick.C
	}
}

// peer returns n as a peer of another node, reached at addr.
func (n *node) peer(addr netip.AddrPort) dataplane.Peer {
	return dataplane.Peer{
		PublicKey:  n.key.Public(),
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(n.ip, n.ip.BitLen())},
		Endpoint:   addr,
	}
}

func (n *node) at(ip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), n.Port())
}

func (n *node) drop(why drop) uint64 { return n.drops.n[why].Load() }

func (n *node) status(k key.Public) dataplane.PeerStatus {
	for _, s := range n.Status() {
		if s.PublicKey == k {
			return s
		}
	}
	return dataplane.PeerStatus{}
}

func mustPeers(t *testing.T, n *node, peers ...dataplane.Peer) {
	t.Helper()
	if err := n.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
}

// packet makes an IP packet of the given size whose payload holds mark.
func packet(src, dst netip.Addr, size int, mark uint32) []byte {
	b := make([]byte, size)
	if src.Is4() {
		b[0], b[8], b[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(b[2:], uint16(size))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		binary.BigEndian.PutUint32(b[20:], mark)
		return b
	}
	b[0], b[6], b[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(b[4:], uint16(size-40))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	binary.BigEndian.PutUint32(b[40:], mark)
	return b
}

func send(from *node, data ...[]byte) {
	batch := make([]dataplane.Packet, len(data))
	for i := range data {
		batch[i].Data = data[i]
	}
	from.Send(batch)
}

// exchange sends one packet from a to b and waits until it is there.
func exchange(t *testing.T, a, b *node, mark uint32) {
	t.Helper()
	want := packet(a.ip, b.ip, 100, mark)
	send(a, bytes.Clone(want))
	expect(t, b, want)
}

func expect(t *testing.T, n *node, want []byte) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case got := <-n.got:
			if bytes.Equal(got, want) {
				return
			}
		case <-timeout:
			t.Fatalf("packet did not arrive; drops: %v\nlog:\n%s", n.Counters(), n.logs)
		}
	}
}

// pair returns two nodes that know each other; only a knows where b is.
func pair(t *testing.T, at string, change ...func(*Config)) (a, b *node) {
	t.Helper()
	a, b = newNode(t, "10.0.0.1", change...), newNode(t, "10.0.0.2", change...)
	mustPeers(t, a, b.peer(b.at(at)))
	mustPeers(t, b, a.peer(netip.AddrPort{}))
	return a, b
}

func need6(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil && runtime.GOOS == "linux" {
		skip(t, "no IPv6 on this host")
	}
}

// skip skips, but fails where everything must be tested.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestPair(t *testing.T) {
	for _, at := range []string{"127.0.0.1", "::1"} {
		t.Run(at, func(t *testing.T) {
			if at == "::1" {
				need6(t)
			}
			a, b := pair(t, at)
			exchange(t, a, b, 1)
			exchange(t, b, a, 2)
			for i := range uint32(50) {
				exchange(t, a, b, 10+i)
				exchange(t, b, a, 10+i)
			}
			s := b.status(a.key.Public())
			if s.Endpoint != a.at(at) {
				t.Errorf("b reaches a at %v, want %v", s.Endpoint, a.at(at))
			}
			if s.LastHandshake.IsZero() || s.LastReceive.IsZero() || s.Proven.IsZero() || s.RxBytes == 0 || s.TxBytes == 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

func directPath(to netip.AddrPort, local netip.Addr, heard int64) *path {
	return newPath(way{to: to, local: local}, false, heard)
}

func directSource(from netip.AddrPort, local netip.Addr, at int64, p *peer) *source {
	return newSource(way{to: from, local: local}, at, p)
}

func newTestBind() *bind {
	return newBind(slog.New(slog.DiscardHandler), newTable(), new(drops), &Config{})
}

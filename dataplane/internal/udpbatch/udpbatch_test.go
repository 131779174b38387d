package udpbatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var loopbacks = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}

// configs are the ways a kernel may serve us.
var configs = []struct {
	name string
	cfg  Config
}{
	{"offload", Config{}},
	{"plain", Config{plain: true}},
	{"single", Config{single: true}},
	{"packet info", Config{PacketInfo: true}},
}

func listen(t testing.TB, cfg Config, ip netip.Addr) *Conn {
	t.Helper()
	cfg.Addr = netip.AddrPortFrom(ip, 0)
	c, err := Listen(cfg)
	if err != nil {
		if ip.Is6() {
			t.Skipf("no IPv6 loopback: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func naive(t testing.TB, ip netip.Addr) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		t.Skipf("no socket on %s: %v", ip, err)
	}
	_ = c.SetReadBuffer(4 << 20)
	t.Cleanup(func() { c.Close() })
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort {
	a := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// messages makes a batch with runs of equal sizes, shorter tails, empty
// datagrams, and headers of every kind.
func messages(rng *rand.Rand, to netip.AddrPort, n int) []Message {
	var out []Message
	for len(out) < n {
		size := []int{0, 1, 40, 64, 1300, 1400, 9000}[rng.IntN(7)]
		for range 1 + rng.IntN(90) {
			b := make([]byte, size)
			for i := 0; i < size; i += 61 { // tells datagrams, and places in them, apart
				b[i] = byte(rng.Uint32())
			}
			cut := 0
			if size > 0 {
				cut = []int{0, min(size, 22), size}[rng.IntN(3)]
			}
			out = append(out, Message{To: to, Header: b[:cut], Payload: b[cut:]})
		}
		if rng.IntN(2) == 0 && size > 0 {
			out = append(out, Message{To: to, Payload: make([]byte, rng.IntN(size))})
		}
	}
	return out[:n]
}

func joined(m Message) []byte { return append(bytes.Clone(m.Header), m.Payload...) }

// TestWriteAgainstNaive sends through Conn and reads with a plain socket.
func TestWriteAgainstNaive(t *testing.T) {
	for _, ip := range loopbacks {
		for _, cc := range configs {
			t.Run(fmt.Sprintf("%s/%s", ip, cc.name), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(1, 2))
				c, peer := listen(t, cc.cfg, ip), naive(t, ip)
				buf := make([]byte, 1<<16)
				for range 30 {
					msgs := messages(rng, addrOf(peer), 1+rng.IntN(150))
					if n := c.Write(msgs); n != len(msgs) {
						t.Fatalf("Write = %d, want %d: %v", n, len(msgs), c.Counters("t"))
					}
					for i, m := range msgs {
						_ = peer.SetReadDeadline(time.Now().Add(5 * time.Second))
						n, from, err := peer.ReadFromUDPAddrPort(buf)
						if err != nil {
							t.Fatalf("datagram %d of %d: %v", i, len(msgs), err)
						}
						if from.Port() != c.LocalAddr().Port() || !bytes.Equal(buf[:n], joined(m)) {
							t.Fatalf("datagram %d: %d bytes from %s, want %d bytes", i, n, from, len(joined(m)))
						}
					}
				}
			})
		}
	}
}

// TestReadAgainstNaive sends with a plain socket, and with a Conn that makes
// super-datagrams, and reads through Conn with a small dst.
func TestReadAgainstNaive(t *testing.T) {
	for _, ip := range loopbacks {
		for _, cc := range configs {
			t.Run(fmt.Sprintf("%s/%s", ip, cc.name), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(3, 4))
				c, peer, gso := listen(t, cc.cfg, ip), naive(t, ip), listen(t, Config{}, ip)
				dst := make([]Datagram, 7)
				for round := range 30 {
					msgs := messages(rng, c.LocalAddr(), 1+rng.IntN(150))
					from := addrOf(peer)
					if round%2 == 0 {
						from = gso.LocalAddr()
						gso.Write(msgs)
					} else {
						for _, m := range msgs {
							if _, err := peer.WriteToUDPAddrPort(joined(m), m.To); err != nil {
								t.Fatal(err)
							}
						}
					}
					for got := 0; got < len(msgs); {
						n := read(t, c, dst)
						for _, d := range dst[:n] {
							if d.From != from || !bytes.Equal(d.Data, joined(msgs[got])) {
								t.Fatalf("datagram %d: %d bytes from %s, want %d from %s", got, len(d.Data), d.From, len(joined(msgs[got])), from)
							}
							if want := (map[bool]netip.Addr{true: ip})[cc.cfg.PacketInfo]; d.Local != want {
								t.Fatalf("local %v, want %v", d.Local, want)
							}
							got++
						}
					}
				}
			})
		}
	}
}

// read is Read with a deadline.
func read(t testing.TB, c *Conn, dst []Datagram) int {
	t.Helper()
	watchdog := time.AfterFunc(5*time.Second, func() { c.Close() })
	defer watchdog.Stop()
	n, err := c.Read(dst)
	if err != nil {
		t.Fatalf("Read: %v (nothing came for 5 s)", err)
	}
	return n
}

func TestCloseWhileReading(t *testing.T) {
	c := listen(t, Config{}, loopbacks[0])
	errs := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]Datagram, 1))
		errs <- err
	}()
	// Whether Read blocks already or not yet, the answer is the same.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Read = %v, want net.ErrClosed", err)
	}
	if _, err := c.Read(make([]Datagram, 1)); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Read after Close = %v, want net.ErrClosed", err)
	}
	if n := c.Write([]Message{{To: c.LocalAddr(), Payload: []byte("x")}, {To: c.LocalAddr()}}); n != 0 {
		t.Fatalf("Write after Close = %d, want 0", n)
	}
	if got := counter(c, "closed"); got != 2 {
		t.Fatalf("closed = %d, want 2", got)
	}
	if err := c.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
}

func counter(c *Conn, reason string) uint64 {
	for _, k := range c.Counters("t") {
		if k.Reason == reason && k.Name != "t_receive_drop_total" {
			return k.Value
		}
	}
	return 0
}

// TestDeadPort: what a dead destination answers with ICMP reaches neither Read
// nor the messages to others.
func TestDeadPort(t *testing.T) {
	for _, ip := range loopbacks {
		t.Run(ip.String(), func(t *testing.T) {
			c, peer, gone := listen(t, Config{}, ip), naive(t, ip), naive(t, ip)
			dead := addrOf(gone)
			gone.Close()
			for i := range 50 {
				b := binary.BigEndian.AppendUint32(nil, uint32(i))
				c.Write([]Message{{To: dead, Payload: b}, {To: addrOf(peer), Payload: b}, {To: dead, Payload: b}})
			}
			buf := make([]byte, 16)
			for i := range 50 {
				_ = peer.SetReadDeadline(time.Now().Add(5 * time.Second))
				n, _, err := peer.ReadFromUDPAddrPort(buf)
				if err != nil || n != 4 || binary.BigEndian.Uint32(buf) != uint32(i) {
					t.Fatalf("datagram %d: %x, %v", i, buf[:n], err)
				}
			}
			if _, err := peer.WriteToUDPAddrPort([]byte("hello"), c.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			dst := make([]Datagram, 1)
			if n := read(t, c, dst); n != 1 || string(dst[0].Data) != "hello" {
				t.Fatalf("Read = %d, %q", n, dst[0].Data)
			}
		})
	}
}

// TestRefusedMessageAlone: a datagram that no socket can send, and one of the
// other family, leave their neighbours alone.
func TestRefusedMessageAlone(t *testing.T) {
	c, peer := listen(t, Config{}, loopbacks[0]), naive(t, loopbacks[0])
	to := addrOf(peer)
	msgs := []Message{
		{To: to, Payload: []byte("one")},
		{To: to, Payload: make([]byte, 65508)},
		{To: netip.MustParseAddrPort("[::1]:9"), Payload: []byte("six")},
		{To: netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port()), Payload: []byte("two")},
	}
	if n := c.Write(msgs); n != 2 {
		t.Fatalf("Write = %d, want 2", n)
	}
	buf := make([]byte, 16)
	for _, want := range []string{"one", "two"} {
		_ = peer.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := peer.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
		}
	}
	for _, reason := range []string{"too_big", "family"} {
		if got := counter(c, reason); got != 1 {
			t.Errorf("%s = %d, want 1", reason, got)
		}
	}
}

func TestConcurrentWriters(t *testing.T) {
	const writers, batches, size = 4, 25, 32
	c, peer := listen(t, Config{}, loopbacks[0]), listen(t, Config{}, loopbacks[0])
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for b := range batches {
				msgs := make([]Message, size)
				for i := range msgs {
					p := binary.BigEndian.AppendUint32([]byte{byte(w)}, uint32(b*size+i))
					msgs[i] = Message{To: peer.LocalAddr(), Header: p[:1], Payload: p[1:]}
				}
				if n := c.Write(msgs); n != size {
					t.Errorf("Write = %d, want %d", n, size)
				}
			}
		})
	}
	wg.Wait()
	var next [writers]uint32
	dst := make([]Datagram, 64)
	for got := 0; got < writers*batches*size; {
		n := read(t, peer, dst)
		for _, d := range dst[:n] {
			w, seq := d.Data[0], binary.BigEndian.Uint32(d.Data[1:])
			if seq != next[w] {
				t.Fatalf("writer %d: sequence %d, want %d", w, seq, next[w])
			}
			next[w]++
			got++
		}
	}
}

func TestListenErrors(t *testing.T) {
	if _, err := Listen(Config{}); err == nil {
		t.Error("no address: want an error")
	}
	c := listen(t, Config{}, loopbacks[0])
	if _, err := Listen(Config{Addr: c.LocalAddr()}); err == nil {
		t.Error("taken port: want an error")
	}
}

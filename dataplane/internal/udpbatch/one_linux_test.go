package udpbatch

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ttlReader is a socket that sees the TTL of what it receives.
func ttlReader(t *testing.T, ip netip.Addr) (addr netip.AddrPort, next func() (data []byte, ttl int)) {
	t.Helper()
	network, level, opt, typ := "udp4", unix.IPPROTO_IP, unix.IP_RECVTTL, unix.IP_TTL
	if ip.Is6() {
		network, level, opt, typ = "udp6", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, unix.IPV6_HOPLIMIT
	}
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		unable(t, "no loopback of this family", err)
	}
	t.Cleanup(func() { c.Close() })
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, opt, 1) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), func() ([]byte, int) {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b, oob := make([]byte, 2048), make([]byte, 256)
		n, m, _, _, err := c.ReadMsgUDPAddrPort(b, oob)
		if err != nil {
			t.Fatal(err)
		}
		cms, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil {
			t.Fatal(err)
		}
		for _, cm := range cms {
			if int(cm.Header.Level) == level && int(cm.Header.Type) == typ {
				return b[:n], int(cm.Data[0])
			}
		}
		t.Fatal("no TTL")
		return nil, 0
	}
}

func TestWriteOneTTL(t *testing.T) {
	for _, ip := range loopbacks {
		t.Run(ip.String(), func(t *testing.T) {
			to, next := ttlReader(t, ip)
			c := listen(t, Config{PacketInfo: true}, ip)
			for _, step := range []struct{ ttl, want int }{{3, 3}, {0, 64}, {255, 255}, {1, 1}} {
				m := Message{To: to, Local: ip, Header: []byte{1, 2}, Payload: []byte{3}}
				if err := c.WriteOne(m, Options{TTL: step.ttl}); err != nil {
					t.Fatal(err)
				}
				if got, ttl := next(); ttl != step.want || !bytes.Equal(got, []byte{1, 2, 3}) {
					t.Errorf("TTL %d: got %d, data %x", step.ttl, ttl, got)
				}
			}
		})
	}
}

// TestWriteOneDF: with DF a datagram larger than the link is an error, before and
// after it is fragmented.
func TestWriteOneDF(t *testing.T) {
	here, there := cable(t, 1400)
	for _, at := range [][2]netip.Prefix{{here4, there4}, {here6, there6}} {
		c := here.listen(Config{PacketInfo: true}, at[0].Addr())
		to := there.listen(Config{}, at[1].Addr())
		dst := make([]Datagram, 4)
		big := make([]byte, 2000)
		for _, step := range []struct {
			size int
			df   bool
			want error
		}{{2000, false, nil}, {2000, true, unix.EMSGSIZE}, {1300, true, nil}, {2000, false, nil}} {
			err := c.WriteOne(Message{To: to.LocalAddr(), Payload: big[:step.size]}, Options{DF: step.df})
			if !errors.Is(err, step.want) {
				t.Fatalf("%d bytes, DF %v: %v, want %v", step.size, step.df, err, step.want)
			}
			if err != nil {
				continue
			}
			if n := read(t, to, dst); n != 1 || len(dst[0].Data) != step.size {
				t.Fatalf("%d bytes did not arrive", step.size)
			}
		}
		if got := c.count.txTooBig.Load(); got != 1 {
			t.Errorf("%d counted as too big, want 1", got)
		}
	}
}

// TestPromote: a light socket takes datagrams before and after it becomes a full
// one, and super-datagrams then.
func TestPromote(t *testing.T) {
	for _, ip := range loopbacks {
		c := listen(t, Config{Light: true, PacketInfo: true}, ip)
		if c.rx.n != 1 || len(c.rx.bufs[0]) != lightSlot {
			t.Fatalf("%d slots of %d bytes", c.rx.n, len(c.rx.bufs[0]))
		}
		from := listen(t, Config{}, ip)
		msgs := sized(c, 20, 1000)
		for range 3 {
			for i := 0; i < len(msgs); i += 5 { // fits the small queue
				if got := from.Write(msgs[i : i+5]); got != 5 {
					t.Fatalf("sent %d", got)
				}
				receiveAll(t, c, msgs[i:i+5])
			}
			c.Promote()
		}
		if c.rx.light || len(c.rx.bufs[0]) != slotSize {
			t.Error("not promoted")
		}
		receiveBurst(t, from, c)
	}
}

// receiveBurst sends more than one light slot holds, as super-datagrams.
func receiveBurst(t *testing.T, from, to *Conn) {
	t.Helper()
	msgs := sized(to, 40, 1400)
	if got := from.Write(msgs); got != len(msgs) {
		t.Fatalf("sent %d", got)
	}
	receiveAll(t, to, msgs)
}

// TestTryWrite sends to a neighbour that does not answer, so that the kernel holds
// what was sent: TryWrite does not wait for room, and says what did not go.
func TestTryWrite(t *testing.T) {
	c := listen(t, Config{}, loopbacks[0])
	to := listen(t, Config{}, loopbacks[0])
	msgs := sized(to, 30, 500)
	if sent, refused := c.TryWrite(msgs); sent != len(msgs) || refused != 0 {
		t.Errorf("sent %d, refused %d", sent, refused)
	}
	receiveAll(t, to, msgs)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if sent, refused := c.TryWrite(msgs); sent != 0 || refused != len(msgs) {
		t.Errorf("closed socket: sent %d, refused %d", sent, refused)
	}

	here, _ := cable(t, 1500)
	c = here.listen(Config{SendBuffer: 8 << 10}, here4.Addr())
	for i := range msgs {
		msgs[i].To = netip.MustParseAddrPort("10.8.0.99:9")
	}
	msgs = append(msgs, append(msgs, msgs...)...)
	sent, refused := c.TryWrite(msgs)
	if sent == 0 || refused == 0 || sent+refused != len(msgs) {
		t.Errorf("full socket: sent %d, refused %d of %d", sent, refused, len(msgs))
	}
	if got := c.count.txFull.Load(); got != uint64(refused) {
		t.Errorf("%d counted as refused, want %d", got, refused)
	}
}

func TestWriteOneAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c := listen(t, Config{PacketInfo: true}, loopbacks[0])
	to := listen(t, Config{}, loopbacks[0])
	m := Message{To: to.LocalAddr(), Local: loopbacks[0], Payload: make([]byte, 100)}
	if n := testing.AllocsPerRun(100, func() { _ = c.WriteOne(m, Options{TTL: 5, DF: true}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

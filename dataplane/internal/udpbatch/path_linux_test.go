package udpbatch

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	here4, there4 = netip.MustParsePrefix("10.8.0.1/24"), netip.MustParsePrefix("10.8.0.2/24")
	here6, there6 = netip.MustParsePrefix("fd00:8::1/64"), netip.MustParsePrefix("fd00:8::2/64")
)

// cable joins two namespaces by a veth pair of the given MTU.
func cable(t *testing.T, mtu int) (here, there *namespace) {
	here, there = newNamespace(t), newNamespace(t)
	here.do("veth", func() error {
		return errors.Join(netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "cable0", MTU: mtu}, PeerName: "cable0",
			PeerNamespace: netlink.NsFd(there.fd),
		}), up(mtu, here4, here6))
	})
	there.do("veth", func() error { return up(mtu, there4, there6) })
	return here, there
}

func up(mtu int, addrs ...netip.Prefix) error {
	l, err := netlink.LinkByName("cable0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(l, mtu); err != nil {
		return err
	}
	for _, p := range addrs {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

func (n *namespace) listen(cfg Config, ip netip.Addr) (c *Conn) {
	n.t.Helper()
	cfg.Addr = netip.AddrPortFrom(ip, 0)
	n.do("listen", func() (err error) { c, err = Listen(cfg); return err })
	n.t.Cleanup(func() { c.Close() })
	return c
}

func sized(to *Conn, n, size int) []Message {
	msgs := make([]Message, n)
	for i := range msgs {
		b := bytes.Repeat([]byte{byte(i)}, size)
		msgs[i] = Message{To: to.LocalAddr(), Header: b[:22], Payload: b[22:]}
	}
	return msgs
}

// receiveAll reads what msgs are, whatever fragments they came in.
func receiveAll(t *testing.T, c *Conn, msgs []Message) {
	t.Helper()
	dst := make([]Datagram, 16)
	for got := 0; got < len(msgs); {
		n := read(t, c, dst)
		for _, d := range dst[:n] {
			if !bytes.Equal(d.Data, joined(msgs[got])) {
				t.Fatalf("datagram %d: %d bytes of %x, want %d", got, len(d.Data), d.Data[:1], len(joined(msgs[got])))
			}
			got++
		}
	}
}

// TestSmallPath: on a link of MTU 1280 the kernel refuses super-datagrams of
// 1400 byte segments. They arrive as fragments, the refusal is paid once, and
// segments that fit still leave together.
func TestSmallPath(t *testing.T) {
	here, there := cable(t, 1280)
	for _, ips := range [][2]netip.Prefix{{here4, there4}, {here6, there6}} {
		t.Run(ips[0].String(), func(t *testing.T) {
			tx, rx := here.listen(Config{}, ips[0].Addr()), there.listen(Config{}, ips[1].Addr())
			if tx.gso.segments.Load() == 0 {
				unable(t, "super-datagrams", errors.ErrUnsupported)
			}
			var calls []uint64
			for _, size := range []int{1400, 1400, 1400, 1200, 1200} {
				msgs := sized(rx, 40, size)
				msgs[39].Payload = msgs[39].Payload[:7] // a shorter last one
				before := tx.count.txCalls.Load()
				if n := tx.Write(msgs); n != len(msgs) {
					t.Fatalf("Write = %d, want %d: %v", n, len(msgs), tx.Counters("t"))
				}
				receiveAll(t, rx, msgs)
				calls = append(calls, tx.count.txCalls.Load()-before)
			}
			if got := counter(tx, "size"); got != 1 {
				t.Errorf("%d runs refused, want 1", got)
			}
			if want := "[2 1 1 1 1]"; fmt.Sprint(calls) != want {
				t.Errorf("system calls per Write %v, want %s", calls, want)
			}
		})
	}
}

// slow puts a rate on the way out of a namespace; what waits there fills the
// socket's send buffer.
func (n *namespace) slow(bytesPerSecond uint64) {
	n.t.Helper()
	n.do("token bucket", func() error {
		l, err := netlink.LinkByName("cable0")
		if err != nil {
			return err
		}
		q := &netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       bytesPerSecond, Buffer: netlink.Xmittime(bytesPerSecond, 4000), Limit: 1 << 20,
		}
		if err := netlink.QdiscAdd(q); errors.Is(err, unix.ENOENT) {
			return unix.EOPNOTSUPP
		} else if err != nil {
			return err
		}
		return nil
	})
}

// TestFullSocket: a Write that finds the send buffer full waits for room, and
// gives up in time when there is none.
func TestFullSocket(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate uint64
		all  bool
	}{{"drains", 2_000_000, true}, {"stuck", 10_000, false}} {
		t.Run(tt.name, func(t *testing.T) {
			here, there := cable(t, 1500)
			here.slow(tt.rate)
			tx := here.listen(Config{SendBuffer: 16 << 10, plain: true}, here4.Addr())
			rx := there.listen(Config{}, there4.Addr())
			msgs := sized(rx, 300, 1000)
			start := time.Now()
			n := tx.Write(msgs)
			if tt.all != (n == len(msgs)) || counter(tx, "queue_full") != uint64(len(msgs)-n) {
				t.Errorf("Write = %d of %d, queue_full = %d", n, len(msgs), counter(tx, "queue_full"))
			}
			if tt.all {
				receiveAll(t, rx, msgs)
			} else if d := time.Since(start); d > 20*writeWait {
				t.Errorf("a stuck socket held Write for %s", d)
			}
		})
	}
}

// TestLocal: Message.Local is the source address, also between messages that
// could otherwise leave as one.
func TestLocal(t *testing.T) {
	tx, rx := listen(t, Config{PacketInfo: true}, netip.IPv4Unspecified()), listen(t, Config{}, loopbacks[0])
	want := make([]netip.Addr, 40)
	msgs := sized(rx, len(want), 100)
	for i := range msgs {
		want[i] = netip.AddrFrom4([4]byte{127, 0, 0, byte(10 + i/10)})
		if i >= 30 {
			want[i] = loopbacks[0] // the kernel's choice
		} else {
			msgs[i].Local = want[i]
		}
	}
	if n := tx.Write(msgs); n != len(msgs) {
		t.Fatalf("Write = %d, want %d", n, len(msgs))
	}
	dst := make([]Datagram, 64)
	for got := 0; got < len(want); {
		n := read(t, rx, dst)
		for _, d := range dst[:n] {
			if d.From.Addr() != want[got] {
				t.Fatalf("datagram %d from %s, want %s", got, d.From, want[got])
			}
			got++
		}
	}
}

package hostnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/dataplane"
)

const megabytes = 10 << 20

func TestTUNTCP(t *testing.T) {
	for _, row := range []struct {
		name      string
		near, far netip.Addr
		gso       bool
	}{{"v4", near4, far4, true}, {"v6", near6, far6, true}, {"v4 plain writes", near4, far4, false}} {
		t.Run(row.name, func(t *testing.T) {
			tunNamespace(t)
			m := newMirror(t)
			if !row.gso {
				m.tun.writer.coalesce.TCP = false
			}
			stop := runTUN(t, m.tun)
			transfer(t, row.near, row.far)
			stop()
			if m.tun.reader.split.Size() != 0 {
				t.Error("a super-packet was left half cut")
			}
			if n := counter(m.tun, "tun_read_super_total", ""); n == 0 {
				t.Error("no read of more than one packet: offload is not on")
			}
			if n := counter(m.tun, "tun_write_super_total", ""); (n > 0) != row.gso {
				t.Errorf("%d super-packets written, joining is %v", n, row.gso)
			}
			if m.largest > dataplane.DefaultMTU {
				t.Errorf("a packet of %d bytes, MTU is %d", m.largest, dataplane.DefaultMTU)
			}
			noDrops(t, m.tun)
		})
	}
}

// transfer sends 10 MB from the near address to itself, over the far one, and
// the sum of them back.
func transfer(t *testing.T, near, far netip.Addr) {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(near, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() { served <- serveSum(l) }()

	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", netip.AddrPortFrom(far, port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	data := make([]byte, megabytes)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(got, want[:]) {
		t.Fatal("the bytes that arrived are not those that were sent")
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

func serveSum(l net.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	h := sha256.New()
	if n, err := io.Copy(h, c); err != nil || n != megabytes {
		return fmt.Errorf("%d bytes: %w", n, err)
	}
	_, err = c.Write(h.Sum(nil))
	return err
}

func noDrops(t *testing.T, tun *TUN) {
	t.Helper()
	for _, c := range tun.Counters() {
		if c.Value != 0 && (c.Name == "tun_drop_total" || c.Name == "tun_gso_fallback_total") {
			t.Errorf("%s %s: %d", c.Name, c.Reason, c.Value)
		}
	}
}

func TestTUNUDP(t *testing.T) {
	for _, row := range []struct {
		name      string
		near, far netip.Addr
		segment   int
	}{
		{"v4", near4, far4, 0},
		{"v6", near6, far6, 0},
		{"v4 GSO", near4, far4, 1200},
		{"v6 GSO", near6, far6, 1200},
	} {
		t.Run(row.name, func(t *testing.T) {
			tunNamespace(t)
			m := newMirror(t)
			stop := runTUN(t, m.tun)
			exchange(t, row.near, row.far, row.segment)
			stop()
			if row.segment > 0 && m.tun.writer.coalesce.UDP && counter(m.tun, "tun_read_super_total", "") == 0 {
				t.Error("no UDP super-packet was read")
			}
			if row.segment > 0 && m.tun.writer.coalesce.UDP && counter(m.tun, "tun_write_super_total", "") == 0 {
				t.Error("no UDP super-packet was written")
			}
			noDrops(t, m.tun)
		})
	}
}

// exchange sends datagrams to the far address and receives them as from there.
func exchange(t *testing.T, near, far netip.Addr, segment int) {
	t.Helper()
	in, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(near, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	_ = in.SetReadBuffer(1 << 20)
	port := in.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	out, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(far, port)))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()

	probe(t, out, in)
	var want [][]byte
	for i := range 10 {
		want = append(want, bytes.Repeat([]byte{byte(i + 1)}, 1200))
	}
	want = append(want, bytes.Repeat([]byte{99}, 77))
	if segment > 0 {
		setSegment(t, out, segment)
		if _, err := out.Write(bytes.Join(want, nil)); err != nil {
			t.Fatal(err)
		}
	} else {
		for _, b := range want {
			if _, err := out.Write(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	buf := make([]byte, 4000)
	for i, b := range want {
		_ = in.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, from, err := in.ReadFromUDPAddrPort(buf)
		for err == nil && n == 1 {
			n, from, err = in.ReadFromUDPAddrPort(buf) // a late probe
		}
		if err != nil {
			t.Fatalf("datagram %d, sent from %s: %v", i, out.LocalAddr(), err)
		}
		if !bytes.Equal(buf[:n], b) || from.Addr() != far {
			t.Fatalf("datagram %d: %d bytes of %d from %s", i, n, buf[0], from)
		}
	}
}

// probe sends single bytes until one arrives: the kernel says that an IPv6
// address can be used a moment before it takes packets for it.
func probe(t *testing.T, out, in *net.UDPConn) {
	t.Helper()
	for range 200 {
		if _, err := out.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		_ = in.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, _, err := in.ReadFromUDPAddrPort(make([]byte, 1)); err == nil {
			return
		}
	}
	t.Fatal("no datagram comes back")
}

func setSegment(t *testing.T, c *net.UDPConn, n int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, n) }); err != nil {
		t.Fatal(err)
	}
	if set != nil {
		t.Skipf("kernel without UDP_SEGMENT: %v", set)
	}
}

// TestTUNCrash: the device outlives its agent, and connections survive the gap.
func TestTUNCrash(t *testing.T) {
	tunNamespace(t)
	m := newMirror(t)
	index := m.tun.Index()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.tun.Run(ctx) }()

	l, err := net.Listen("tcp", netip.AddrPortFrom(near4, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.DialTimeout("tcp", netip.AddrPortFrom(far4, l.Addr().(*net.TCPAddr).AddrPort().Port()).String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	if err := m.tun.Close(); err != nil { // what a dying process does
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("Run after Close: %v", err)
	}
	cancel()
	m.tun.Send([]dataplane.Packet{{Data: udp4(far4, near4, []byte("late"))}})
	if n := counter(m.tun, "tun_drop_total", "write_failed"); n != 1 {
		t.Errorf("%d packets dropped after Close, want 1", n)
	}
	waitFor(t, "the device stays, without carrier", func() bool {
		iface, err := net.InterfaceByIndex(index)
		return err == nil && iface.Name == tunName && iface.Flags&net.FlagRunning == 0
	})

	m.tun = mustOpen(t, m)
	if m.tun.Index() != index {
		t.Fatalf("a new device, index %d; want the old one, %d", m.tun.Index(), index)
	}
	runTUN(t, m.tun)
	for _, x := range []net.Conn{c, s} {
		_ = x.SetDeadline(time.Now().Add(20 * time.Second))
	}
	if _, err := c.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if _, err := io.ReadFull(s, buf); err != nil || string(buf) != "still here" {
		t.Fatalf("%q, %v", buf, err)
	}
	if err := m.tun.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName(tunName); err == nil {
		t.Fatal("the device is still there after Remove")
	}
}

// TestTUNRunTwice: Run ends with its context and can be called again.
func TestTUNRunTwice(t *testing.T) {
	tunNamespace(t)
	m := newMirror(t)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.tun.Run(ctx) }()
		exchange(t, near4, far4, 0)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func TestTUNDeleted(t *testing.T) {
	tunNamespace(t)
	tun := mustOpen(t, dataplane.SenderFunc(func([]dataplane.Packet) {}))
	done := make(chan error, 1)
	go func() { done <- tun.Run(t.Context()) }()
	if err := deleteLink(tunName); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err == nil {
			t.Fatal("Run returned nil for a deleted device")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not notice that the device is gone")
	}
	tun.Send([]dataplane.Packet{{Data: udp4(far4, near4, nil)}})
	if counter(tun, "tun_write_packets_total", "") != 0 {
		t.Error("written to a deleted device")
	}
	if err := tun.Remove(); err != nil {
		t.Errorf("Remove of a deleted device: %v", err)
	}
}

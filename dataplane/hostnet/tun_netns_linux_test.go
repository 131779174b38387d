package hostnet

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/dataplane"
)

// tunNamespace moves the test into a network namespace of its own. Its thread
// stays locked and ends with the test's goroutine.
func tunNamespace(t testing.TB) {
	t.Helper()
	skip := func(why string, err error) {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s: %v", why, err)
		}
		t.Skipf("%s: %v", why, err)
	}
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		skip("needs "+tunPath, err)
	}
	_ = unix.Close(fd)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		skip("needs root for a network namespace", err)
	}
}

const tunName = "coraxtest0"

var (
	near4, far4 = netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")
	near6, far6 = netip.MustParseAddr("fd99::1"), netip.MustParseAddr("fd99::2")
)

func mustOpen(t testing.TB, receive dataplane.Sender) *TUN {
	t.Helper()
	tun, err := OpenTUN(TUNConfig{Name: tunName, Receive: receive})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tun.Close() })
	return tun
}

// addressTUN gives the device the near addresses; the far ones are behind it.
func addressTUN(t testing.TB, tun *TUN) {
	t.Helper()
	link, err := netlink.LinkByName(tun.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{near4.String() + "/24", near6.String() + "/64"} {
		a, err := netlink.ParseAddr(p)
		if err != nil {
			t.Fatal(err)
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, a); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "addresses that can be used", func() bool {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		for _, a := range addrs {
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				return false
			}
		}
		return err == nil
	})
}

// runTUN runs tun until stop is called, or the test ends.
func runTUN(t testing.TB, tun *TUN) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tun.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// swap exchanges source and destination address: the checksums stay right, and
// what was sent to the far address comes back as if it had come from there.
func swap(p []byte) {
	var tmp [16]byte
	a, n := 12, 4
	if p[0]>>4 == 6 {
		a, n = 8, 16
	}
	copy(tmp[:n], p[a:])
	copy(p[a:a+n], p[a+n:])
	copy(p[a+n:a+2*n], tmp[:n])
}

// mirror sends everything that comes out of a TUN back into it, as it would come
// from the far address.
type mirror struct {
	tun     *TUN
	packets int
	largest int
	batches int
}

func (m *mirror) Send(batch []dataplane.Packet) {
	m.batches++
	for _, p := range batch {
		m.packets++
		m.largest = max(m.largest, len(p.Data))
		swap(p.Data)
	}
	m.tun.Send(batch)
}

func newMirror(t testing.TB) *mirror {
	m := &mirror{}
	m.tun = mustOpen(t, m)
	addressTUN(t, m.tun)
	return m
}

// counter returns the value of one counter.
func counter(tun *TUN, name, reason string) uint64 {
	for _, c := range tun.Counters() {
		if c.Name == name && c.Reason == reason {
			return c.Value
		}
	}
	return ^uint64(0)
}

// waitFor fails the test when ok does not come true within ten seconds.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timeout: %s", what)
		}
	}
}

// udp4 is a datagram with a complete checksum.
func udp4(src, dst netip.Addr, payload []byte) []byte {
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(payload)))
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(p[10:], naiveChecksum(p[:20]))
	binary.BigEndian.PutUint16(p[20:], 4000)
	binary.BigEndian.PutUint16(p[22:], 5000)
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	p = append(p, payload...)
	pseudo := append([]byte{}, p[12:20]...)
	pseudo = append(pseudo, 0, 17, p[24], p[25])
	binary.BigEndian.PutUint16(p[26:], naiveChecksum(append(pseudo, p[20:]...)))
	return p
}

func naiveChecksum(b []byte) uint16 {
	var s uint32
	for i, x := range b {
		s += uint32(x) << (8 * (1 - i%2))
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

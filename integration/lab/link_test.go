//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shapedPair is two hosts on one LAN of userspace links.
func shapedPair(t *testing.T, cfg LinkConfig) (a, b *Host) {
	t.Helper()
	l := ForTest(t)
	lan := l.ShapedLAN("lan", 0, LinkConfig{})
	a, b = l.Host("a"), l.Host("b")
	a.Attach(lan, "eth0", prefixes("10.0.0.1/24", "fd00::1/64")...)
	b.Attach(lan, "eth0", prefixes("10.0.0.2/24", "10.0.0.3/24", "fd00::2/64")...)
	// While it asks for the MAC address the kernel loses and reorders.
	if _, err := a.PingUntil(ctxFor(t, 10*time.Second), second, PingOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Host{a, b} {
		h.Shape("eth0", cfg)
	}
	return a, b
}

var (
	second = netip.MustParseAddr("10.0.0.2")
	third  = netip.MustParseAddr("10.0.0.3")
)

// numbers sends n numbered datagrams, at most window of them on their way when
// none is lost, and returns the numbers in the order of arrival.
func numbers(t *testing.T, from, to *Host, n, window int) []uint32 {
	t.Helper()
	in, err := to.ListenUDP(netip.AddrPortFrom(second, 9000))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	bigBuffer(t, in)
	out, err := from.DialUDP(netip.AddrPortFrom(second, 9000))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	arrived := make(chan struct{}, n)
	var got []uint32
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for len(got) < n {
			if in.SetReadDeadline(time.Now().Add(2*time.Second)) != nil {
				return
			}
			if _, _, err := in.ReadFromUDPAddrPort(buf); err != nil {
				return
			}
			got = append(got, binary.BigEndian.Uint32(buf))
			arrived <- struct{}{}
		}
	}()
	msg := make([]byte, 1200)
	for i := range n {
		if i >= window {
			select {
			case <-arrived:
			case <-done:
			}
		}
		binary.BigEndian.PutUint32(msg, uint32(i))
		if _, err := out.Write(msg); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	return got
}

// bigBuffer lets a socket keep what its owner is too slow for.
func bigBuffer(t *testing.T, c *net.UDPConn) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	err = rc.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
}

func inOrder(t *testing.T, got []uint32) {
	t.Helper()
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Fatalf("%d came after %d", got[i], got[i-1])
		}
	}
}

func TestLinkLosesNothing(t *testing.T) {
	a, b := shapedPair(t, LinkConfig{})
	const n = 20000
	got := numbers(t, a, b, n, 500)
	inOrder(t, got)
	if len(got) != n {
		t.Errorf("%d of %d arrived: %+v, %+v", len(got), n, a.LinkCounters("eth0"), b.LinkCounters("eth0"))
	}
	for _, h := range []*Host{a, b} {
		if c := h.LinkCounters("eth0"); c.Passed < n || c.Lost != 0 || c.Full != 0 || c.Failed != 0 {
			t.Errorf("%s: %+v", h.Name, c)
		}
	}
	if _, err := b.Serve(7000); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Transfer(ctxFor(t, 60*time.Second), netip.AddrPortFrom(second, 7000), 20<<20); err != nil {
		t.Error(err)
	}
}

func TestLinkJitterKeepsOrder(t *testing.T) {
	a, b := shapedPair(t, LinkConfig{Out: Shape{Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond, Queue: maxQueue}})
	const n = 2000
	got := numbers(t, a, b, n, 200)
	inOrder(t, got)
	if len(got) != n {
		t.Errorf("%d of %d arrived: %+v, %+v", len(got), n, a.LinkCounters("eth0"), b.LinkCounters("eth0"))
	}
}

func TestLinkShapeChanges(t *testing.T) {
	a, b := shapedPair(t, LinkConfig{})
	ctx := ctxFor(t, 30*time.Second)
	ping := func(to netip.Addr) time.Duration {
		t.Helper()
		rtt, err := a.Ping(ctx, to, PingOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return rtt
	}
	ping(second)
	slow := Shape{Delay: 100 * time.Millisecond}
	a.Shape("eth0", LinkConfig{Out: slow})
	if rtt := ping(second); rtt < 100*time.Millisecond {
		t.Errorf("%v with a delay of 100 ms one way", rtt)
	}
	b.Shape("eth0", LinkConfig{In: slow})
	if rtt := ping(second); rtt < 200*time.Millisecond {
		t.Errorf("%v with twice 100 ms one way", rtt)
	}
	// One address only, the others as before.
	b.Shape("eth0", LinkConfig{})
	a.Shape("eth0", LinkConfig{})
	a.ShapeTo("eth0", netip.PrefixFrom(third, 32), LinkConfig{Out: slow, In: slow})
	if rtt := ping(third); rtt < 200*time.Millisecond {
		t.Errorf("%v to the address with a delay", rtt)
	}
	if rtt := ping(second); rtt >= 100*time.Millisecond {
		t.Errorf("%v to the address without a delay", rtt)
	}
	a.ShapeTo("eth0", netip.PrefixFrom(third, 32), LinkConfig{Out: Shape{Loss: 1}})
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := a.Ping(short, third, PingOptions{}); err == nil {
		t.Error("an answer over a link that loses everything")
	}
	ping(second)
}

func TestLinkLossAndRate(t *testing.T) {
	a, b := shapedPair(t, LinkConfig{})
	const n = 1000
	a.Shape("eth0", LinkConfig{Out: Shape{Loss: 0.5}})
	got := numbers(t, a, b, n, n)
	inOrder(t, got)
	if len(got) < 350 || len(got) > 650 {
		t.Errorf("%d of %d arrived with a loss of one half", len(got), n)
	}
	a.Shape("eth0", LinkConfig{Out: Shape{Rate: 1 << 20, Queue: 100}})
	start := time.Now()
	got = numbers(t, a, b, n, n)
	inOrder(t, got)
	c := a.LinkCounters("eth0")
	if len(got) > 600 || c.Full == 0 {
		t.Errorf("%d arrived, %+v: a burst of %d does not fit", len(got), c, n)
	}
	if least := time.Duration(len(got)) * 1200 * time.Second >> 20; time.Since(start) < least {
		t.Errorf("%d datagrams took %v, at 1 MiB/s it takes %v", len(got), time.Since(start), least)
	}
}

func TestLinkRefusesNonsense(t *testing.T) {
	for _, s := range []Shape{{Delay: -1}, {Jitter: -1}, {Loss: 1.1}, {Loss: -0.1}, {Rate: -1}, {Queue: maxQueue + 1}} {
		if s.check() == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
}

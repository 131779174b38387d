//go:build linux

package rootless_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// floodSizes say how much of each flood there is.
type floodSizes struct {
	syns, sources, datagrams, readers, churn int
	// memory is what the agent may have resident at most, in bytes: what it has
	// when all its limits are reached, whatever more comes.
	memory int64
}

func TestFloods(t *testing.T) {
	floods(t, floodSizes{syns: 10_000, sources: 1, datagrams: 10_000, readers: 100, churn: 5_000, memory: 256 << 20})
}

func TestSoakFloods(t *testing.T) {
	if os.Getenv("CORAX_SOAK") == "" {
		t.Skip("set CORAX_SOAK to run it")
	}
	floods(t, floodSizes{syns: 100_000, sources: 4, datagrams: 100_000, readers: 200, churn: 50_000, memory: 256 << 20})
}

// floods does to a rootless site what it cannot serve, while a connection of
// somebody else goes on, and looks at what the agent has counted and kept.
func floods(t *testing.T, size floodSizes) {
	w := prepareWorld(t, true)
	w.gw.SetEnv(fmt.Sprintf("GOMEMLIMIT=%d", size.memory))
	w.start()
	// Who floods is not who is served: limits are for each source.
	good := w.Domains[0].Nodes[0].Pods[0]
	flow, err := good.StartFlow(within(t, 10*time.Second), netip.AddrPortFrom(w.own.IP, podPort))
	if err != nil {
		t.Fatal(err)
	}
	start := w.memory(t)
	for _, f := range []struct {
		name string
		run  func(*testing.T, floodSizes)
	}{{"SYN", w.floodSYN}, {"UDP", w.floodUDP}, {"slow readers", w.slowReaders}, {"churn", w.churn}} {
		t.Run(f.name, func(t *testing.T) {
			f.run(t, size)
			if err := flow.WaitMove(within(t, 20*time.Second)); err != nil {
				t.Errorf("the connection that was there: %v", err)
			}
			if _, err := good.EchoTCP(within(t, 30*time.Second), netip.AddrPortFrom(w.own.IP6, podPort), 1000); err != nil {
				t.Errorf("a new connection of somebody else: %v", err)
			}
			t.Logf("resident %d MB", w.memory(t)>>20)
		})
	}
	// Who never acknowledged was given up.
	w.counted(t, "site_drop_total{abandoned}", 100)
	r, err := flow.Stop()
	if err != nil {
		t.Error(err)
	}
	peak := w.peak(t)
	t.Logf("resident %d MB at first, %d MB at most; longest pause of the flow %v", start>>20, peak>>20, r.Longest)
	if peak > size.memory {
		t.Errorf("%d MB were resident, more than %d", peak>>20, size.memory>>20)
	}
}

// memory is what the rootless agent has resident, in bytes.
func (w *world) memory(t *testing.T) int64 { return w.procStatus(t, "VmRSS:") }

// peak is the most that it ever had.
func (w *world) peak(t *testing.T) int64 { return w.procStatus(t, "VmHWM:") }

func (w *world) procStatus(t *testing.T, key string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.gw.Process().PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == key {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no " + key)
	return 0
}

// samples are the metrics of the rootless agent, with their labels in the name.
func (w *world) samples(t *testing.T) map[string]uint64 {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: w.gw.Host.Dial, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	r, err := c.Get("http://" + netip.AddrPortFrom(w.Domains[1].Nodes[0].IP, 10283).String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]uint64)
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			if f, err := strconv.ParseFloat(value, 64); err == nil && f >= 0 {
				m[strings.TrimPrefix(name, "corax_")] = uint64(f)
			}
		}
	}
	return m
}

// open is how many connections to own pods the agent has; flows are of UDP.
func (w *world) open(t *testing.T) (connections, flows uint64) {
	t.Helper()
	m := w.samples(t)
	if _, ok := m[`forward_open{reason="tcp"}`]; !ok {
		t.Fatalf("no forward_open in %v", m)
	}
	return m[`forward_open{reason="tcp"}`], m[`forward_open{reason="udp"}`]
}

// moved is how many bytes went between own pods and other domains.
func (w *world) moved(t *testing.T) uint64 {
	t.Helper()
	m := w.samples(t)
	return m[`forward_bytes_total{reason="in"}`] + m[`forward_bytes_total{reason="out"}`]
}

// until waits for a condition.
func until(ctx context.Context, t *testing.T, f func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("in time: %v", err)
			return
		}
	}
}

// counted waits until a counter of the rootless agent has risen to at least n.
func (w *world) counted(t *testing.T, name string, n uint64) {
	t.Helper()
	err := w.gw.WaitStatus(within(t, 20*time.Second), func(s *lab.Status) error {
		if s.Counters[name] < n {
			return fmt.Errorf("%s is %d, want at least %d", name, s.Counters[name], n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// floodSYN asks for connections with the pod, from addresses that nobody has, and
// never acknowledges one.
func (w *world) floodSYN(t *testing.T, size floodSizes) {
	var fd int
	if err := w.far.Visit(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	to := netip.AddrPortFrom(w.own.IP, podPort)
	for i := range size.syns {
		from := w.far.IP.As4()
		from[3] = byte(50 + i%size.sources) // of the subnet, so that every hop lets it through
		p := synPacket(netip.AddrPortFrom(netip.AddrFrom4(from), uint16(1024+i/size.sources)), to, uint32(i))
		err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	// Half of all there may be is for one source, and everything above was dropped.
	why := "site_drop_total{attempts_of_source}"
	if size.sources > 2 {
		why = "site_drop_total{attempts_full}"
	}
	w.counted(t, why, uint64(size.syns/10))
}

// synPacket is an IPv4 packet that asks for a connection.
func synPacket(from, to netip.AddrPort, seq uint32) []byte {
	p := make([]byte, 40)
	src, dst := from.Addr().As4(), to.Addr().As4()
	p[0], p[3], p[8], p[9] = 0x45, 40, 64, unix.IPPROTO_TCP
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	h := p[20:]
	binary.BigEndian.PutUint16(h, from.Port())
	binary.BigEndian.PutUint16(h[2:], to.Port())
	binary.BigEndian.PutUint32(h[4:], seq)
	h[12], h[13] = 5<<4, 2 // SYN
	binary.BigEndian.PutUint16(h[14:], 65535)
	sum := uint32(unix.IPPROTO_TCP + len(h))
	for _, b := range [][]byte{src[:], dst[:], h} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(h[16:], ^uint16(sum))
	return p
}

// floodUDP sends datagrams to random ports: of a pod that refuses, and of an address
// that does not answer, where each is a flow that stays.
func (w *world) floodUDP(t *testing.T, size floodSizes) {
	silent := w.blackHole(t, 202)
	c, err := w.far.ListenUDP(netip.AddrPortFrom(w.far.IP, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before := w.status().Counters
	for i := range size.datagrams {
		for _, ip := range []netip.Addr{w.own.IP, silent} {
			// What earlier ones were answered is an error of this one.
			_, _ = c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(ip, uint16(10_000+i%50_000)))
		}
	}
	w.counted(t, "forward_drop_total{refused}", before["forward_drop_total{refused}"]+1)
	w.counted(t, "forward_drop_total{full_source}", before["forward_drop_total{full_source}"]+1)
	if _, n := w.open(t); n == 0 || n > 2048 {
		t.Errorf("%d flows of one source are open", n)
	}
}

// blackHole makes an address of the site's subnet that takes packets and does not
// answer.
func (w *world) blackHole(t *testing.T, last byte) netip.Addr {
	t.Helper()
	ip := w.own.IP.As4()
	ip[3] = last
	bridge, err := w.gw.Host.Netlink().LinkByName(lab.CNIBridge)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.gw.Host.Netlink().NeighSet(&netlink.Neigh{
		LinkIndex: bridge.Attrs().Index, State: netlink.NUD_PERMANENT, IP: ip[:],
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, last},
	}); err != nil {
		t.Fatal(err)
	}
	return netip.AddrFrom4(ip)
}

// slowReaders has connections whose one end sends without end and whose other end
// does not read: half of them in each direction.
func (w *world) slowReaders(t *testing.T, size floodSizes) {
	const port = 7502
	ln, err := w.own.ListenTCP(netip.AddrPortFrom(w.own.IP, port))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	defer func() {
		cancel()
		_ = ln.Close()
		_ = g.Wait()
	}()
	pour := func(c net.Conn) {
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		defer stop()
		b := make([]byte, 64<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
	g.Go(func() error {
		for i := 0; ; i++ {
			c, err := ln.Accept()
			if err != nil {
				return nil
			}
			if i%2 == 0 {
				g.Go(func() error { pour(c); return nil })
			} else {
				context.AfterFunc(ctx, func() { _ = c.Close() })
			}
		}
	})
	for range size.readers {
		c, err := w.far.DialTCP(within(t, 30*time.Second), netip.AddrPortFrom(w.own.IP, port))
		if err != nil {
			t.Fatal(err)
		}
		g.Go(func() error { pour(c); return nil }) // the ends of the first half pour, too
	}
	// It is as full as it gets when nothing moves any more.
	last, since := w.moved(t), time.Now()
	start := last
	until(within(t, 60*time.Second), t, func() error {
		// The flow that goes on moves 100 kB a second.
		if n := w.moved(t); n > last+256<<10 || n == start {
			last, since = n, time.Now()
		}
		if d := time.Since(since); d < time.Second {
			return fmt.Errorf("bytes moved %v ago", d)
		}
		return nil
	})
	if n, _ := w.open(t); n < uint64(size.readers) {
		t.Errorf("%d connections are open", n)
	}
}

// churn opens and closes connections, every other one with a reset.
func (w *world) churn(t *testing.T, size floodSizes) {
	before := w.samples(t)["forward_connections_total"]
	ctx := within(t, 5*time.Minute)
	var g errgroup.Group
	g.SetLimit(32)
	for i := range size.churn {
		g.Go(func() error {
			ip := w.own.IP
			if i%4 < 2 {
				ip = w.own.IP6
			}
			c, err := w.far.DialTCP(ctx, netip.AddrPortFrom(ip, podPort))
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			if i%2 == 0 {
				_ = c.SetLinger(0)
			}
			b := []byte("e hello") // e: echo
			if _, err := c.Write(b); err != nil {
				return err
			}
			answer := make([]byte, len(b)-1)
			if _, err := io.ReadFull(c, answer); err != nil || !bytes.Equal(answer, b[1:]) {
				return fmt.Errorf("%q came back: %w", answer, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if n := w.samples(t)["forward_connections_total"] - before; n < uint64(size.churn) {
		t.Errorf("%d connections were counted", n)
	}
	until(within(t, 30*time.Second), t, func() error {
		if n, _ := w.open(t); n > 1 { // the flow that goes on
			return fmt.Errorf("%d connections are open", n)
		}
		return nil
	})
}

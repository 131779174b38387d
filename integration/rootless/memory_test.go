//go:build linux

package rootless_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"corax/integration/lab"
)

// The smallest program, of make small, and the most bytes that it may have:
// docs/performance.md says what holds them. The short test builds the one without
// Kubernetes that has HTTP/2, since its packages were compiled for the whole program.
const (
	smallTags, smallSize   = "nokube,nethttpomithttp2", 15_000_000
	nokubeTags, nokubeSize = "nokube", 18_000_000
)

// smallProgram builds the agent without Kubernetes.
func smallProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "corax")
	tags, most, args := nokubeTags, int64(nokubeSize), []string{"-ldflags=-s -w"}
	if os.Getenv("CORAX_SOAK") != "" {
		tags, most = smallTags, smallSize
		args = []string{"-pgo=off", "-gcflags=all=-l -d=maxshapelen=64", "-ldflags=-s -w -funcalign=1"}
	}
	args = append(args, "-trimpath", "-tags", tags, "-o", path, "corax/cmd/corax")
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the program with the tags %s has %d bytes", tags, info.Size())
	if info.Size() > most {
		t.Errorf("that is more than %d", most)
	}
	return path
}

// small is a cloud, and an edge whose gateway node has little memory.
type small struct {
	*lab.Topology
	t     *testing.T
	group *memoryGroup
	agent *lab.Agent
	pid   int
	limit int64
}

func newSmall(t *testing.T, binary string, limit int64, args ...string) *small {
	t.Helper()
	s := &small{t: t, group: newMemoryGroup(t, limit), limit: limit}
	s.Topology = lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, NoCapture: true})
	ctx := within(t, 60*time.Second)
	if _, err := s.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	s.agent = s.Domains[1].Agents[0]
	s.agent.SetBinary(s.group.program(t, t.TempDir(), binary))
	s.agent.SetArgs(args...)
	g, ctx := errgroup.WithContext(ctx)
	for _, a := range s.Agents() {
		g.Go(func() error {
			if err := a.Start(); err != nil {
				return err
			}
			return a.WaitReady(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	s.pid = s.agent.Process().PID()
	return s
}

// resident returns what the agent has of its own, and with the pages of its program,
// in bytes.
func (s *small) resident() (own, all int64) {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "RssAnon:":
			own = n << 10
		case "VmRSS:":
			all = n << 10
		}
	}
	return own, all
}

// report logs what the agent and its group hold, and returns what the agent has of
// its own.
func (s *small) report(when string) int64 {
	s.t.Helper()
	own, all := s.resident()
	used, full := s.group.used(s.t)
	s.t.Logf("%s: resident %d KB, of its own %d KB; group %d KB, full %d times", when, all>>10, own>>10, used>>10, full)
	return own
}

// load is traffic, as much as goes.
type load struct {
	streams [2]atomic.Int64 // bytes that arrived: to the edge, from it
	floods  atomic.Int64    // datagrams sent
}

// stream is a connection to the edge that sends one way until ctx ends, 0 being to
// the edge, and counts what arrives.
func (l *load) stream(ctx context.Context, from, to *lab.Pod, port uint16, way int) error {
	ln, err := to.ListenTCP(netip.AddrPortFrom(to.IP, port))
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }()
	out, err := from.DialTCP(ctx, netip.AddrPortFrom(to.IP, port))
	if err != nil {
		return ctxOr(ctx, err)
	}
	in, err := ln.AcceptTCP()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _, _ = out.Close(), in.Close() })()
	if way == 1 {
		in, out = out, in
	}
	g := new(errgroup.Group)
	g.Go(func() error {
		b := make([]byte, 64<<10)
		for {
			if _, err := out.Write(b); err != nil {
				return ctxOr(ctx, err)
			}
		}
	})
	g.Go(func() error {
		b := make([]byte, 64<<10)
		for {
			n, err := in.Read(b)
			l.streams[way].Add(int64(n))
			if err != nil {
				return ctxOr(ctx, err)
			}
		}
	})
	return g.Wait()
}

// flood sends datagrams until ctx ends: bursts of so many every 10 ms.
func (l *load) flood(ctx context.Context, from *lab.Host, to netip.AddrPort, size, burst int) error {
	c, err := from.DialUDP(to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	b := make([]byte, size)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for range burst {
			if _, err := c.Write(b); err == nil { // else a full queue, or an ICMP error
				l.floods.Add(1)
			}
		}
	}
}

func ctxOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// run loads the tunnel and VXLAN of the small node for a time: streams both ways if
// asked for, floods both ways, and what is no packet of ours.
func (s *small) run(during time.Duration, streams bool, burst int) *load {
	s.t.Helper()
	l := new(load)
	far := s.Domains[0].Nodes[1].Pods[0]
	near := s.Domains[1].Nodes[1].Pods[0]
	own := s.Domains[1].Nodes[0].Pods[0]
	ctx, cancel := context.WithTimeout(s.t.Context(), during)
	defer cancel()
	sink, err := near.ListenUDP(netip.AddrPortFrom(near.IP, 9000))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	g := new(errgroup.Group)
	for i := range uint16(4) {
		if streams {
			g.Go(func() error { return l.stream(ctx, far, near, 9100+i, int(i%2)) })
			g.Go(func() error { return l.stream(ctx, far, own, 9200+i, int(i%2)) })
		}
	}
	g.Go(func() error { return l.flood(ctx, far.Host, netip.AddrPortFrom(near.IP, 9000), 1200, burst) })
	g.Go(func() error { return l.flood(ctx, far.Host, netip.AddrPortFrom(own.IP, 9000), 1200, burst/2) })
	g.Go(func() error { return l.flood(ctx, near.Host, netip.AddrPortFrom(far.IP, 9000), 200, burst) })
	gw := s.Domains[1].Gateway()
	g.Go(func() error {
		return l.flood(ctx, s.Domains[1].Nodes[1].Host, netip.AddrPortFrom(gw.IP, 4500), 148, burst)
	})
	if err := g.Wait(); err != nil {
		s.t.Error(err)
	}
	return l
}

// Datagrams of a flood every 10 ms: beside streams, and alone, faster than any node
// sends.
const (
	beside = 10
	alone  = 10_000
)

// survive loads the node for twice as long as half, and with a storm in between, and
// checks that it bears it.
func (s *small) survive(half time.Duration) {
	s.t.Helper()
	s.report("before")
	first := s.run(half, true, beside)
	s.report("after the first half")
	storm := s.run(half/2, false, alone)
	middle := s.report("after the storm")
	second := s.run(half, true, beside)
	end := s.report("at the end")
	for _, l := range []*load{first, second} {
		s.t.Logf("streams: %d MB in, %d MB out; %d datagrams, %d in the storm",
			l.streams[0].Load()>>20, l.streams[1].Load()>>20, l.floods.Load(), storm.floods.Load())
		if l.streams[0].Load() < 1<<20 || l.streams[1].Load() < 1<<20 {
			s.t.Error("hardly a byte arrived")
		}
	}
	if n := s.group.kills(s.t); n != 0 {
		s.t.Errorf("%d processes killed for want of memory", n)
	}
	select {
	case <-s.agent.Process().Done():
		s.t.Fatalf("the agent ended: %v", s.agent.Process().Err())
	default:
	}
	// What was free grows until the next collection, and is not given back at once.
	if end > middle+s.limit/8 {
		s.t.Errorf("the agent grew from %d KB to %d KB", middle>>10, end>>10)
	}
	ctx := within(s.t, 30*time.Second)
	if err := s.agent.WaitStatus(ctx, lab.Reached()); err != nil {
		s.t.Error(err)
	}
	status, err := s.agent.Status(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	var drops uint64
	for name, n := range status.Counters {
		s.t.Logf("%s %d", name, n)
		drops += n
	}
	if drops == 0 {
		s.t.Error("nothing was dropped, or it was not counted")
	}
}

// rest waits until the agent is at rest, which it is a minute after the last packet,
// and has given back what it needed before; then it checks what the agent holds.
func (s *small) rest(most int64) {
	s.t.Helper()
	select {
	case <-time.After(2*time.Minute + 30*time.Second):
	case <-s.t.Context().Done():
	}
	s.report("idle")
	if _, all := s.resident(); all > most {
		s.t.Errorf("%d bytes resident when idle, want at most %d", all, most)
	}
}

// TestSmallMemory: the agent without Kubernetes lives in 32 MB under a minute of full
// load.
func TestSmallMemory(t *testing.T) {
	s := newSmall(t, smallProgram(t), 32<<20)
	s.survive(24 * time.Second)
}

// TestSoakSmallMemory does so for long, without a TUN too, and where the program is
// the whole one.
func TestSoakSmallMemory(t *testing.T) {
	if os.Getenv("CORAX_SOAK") == "" {
		t.Skip("CORAX_SOAK is not set; TestSmallMemory is the short form")
	}
	whole, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	little := smallProgram(t)
	for _, tc := range []struct {
		name   string
		binary string
		limit  int64
		args   []string
		idle   int64 // at most, resident at rest
		half   time.Duration
	}{
		{"TUN, 32 MB", little, 32 << 20, nil, 20 << 20, 4 * time.Minute},
		{"netstack, 32 MB", little, 32 << 20, []string{"--datapath", "netstack"}, 20 << 20, 4 * time.Minute},
		{"TUN, 64 MB, the whole program", whole, 64 << 20, nil, 40 << 20, time.Minute},
		{"netstack, 64 MB, the whole program", whole, 64 << 20, []string{"--datapath", "netstack"}, 40 << 20, time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSmall(t, tc.binary, tc.limit, tc.args...)
			s.rest(tc.idle)
			s.survive(tc.half)
		})
	}
}

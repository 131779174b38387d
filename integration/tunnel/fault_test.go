//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/integration/lab"
)

const (
	faultPort = 7400
	// faultPause is how long a bystander's transfer may pause on a busy machine.
	faultPause = 5 * time.Second
	// faultMemory is what an agent may take under load, in bytes.
	faultMemory = 150 << 20
)

// faults is a cloud and one edge with running agents, and a TCP flow between
// pods of their plain nodes that nothing in a test may disturb.
type faults struct {
	*lab.Topology
	t    *testing.T
	flow *lab.Flow
}

// newFaults starts everything. The flow is checked when the test ends.
func newFaults(t *testing.T, opt lab.Options) *faults {
	t.Helper()
	f := prepareFaults(t, opt)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for _, a := range f.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	f.ready(ctx)
	f.startFlow(ctx)
	return f
}

// prepareFaults builds everything, and starts no agent.
func prepareFaults(t *testing.T, opt lab.Options) *faults {
	t.Helper()
	opt.Edges = max(opt.Edges, 1)
	f := &faults{Topology: lab.Standard(lab.ForTest(t), opt), t: t}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := f.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range f.Nodes() {
		if _, err := n.Pods[0].Serve(faultPort); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *faults) cloud() *lab.Domain { return f.Domains[0] }
func (f *faults) edge() *lab.Domain  { return f.Domains[1] }

// hub is the agent of the cloud's gateway node.
func (f *faults) hub() *lab.Agent { return f.cloud().Agents[0] }

func (f *faults) ready(ctx context.Context) {
	f.t.Helper()
	for _, a := range f.Agents() {
		if err := a.WaitReady(ctx); err != nil {
			f.t.Fatal(err)
		}
	}
}

// startFlow starts the transfer, from the edge to the cloud.
func (f *faults) startFlow(ctx context.Context) {
	t := f.t
	t.Helper()
	from, to := f.edge().Nodes[1].Pods[0], f.cloud().Nodes[1].Pods[0]
	if _, err := from.PingUntil(ctx, to.IP, lab.PingOptions{}); err != nil {
		t.Fatal(err)
	}
	flow, err := from.StartFlow(ctx, netip.AddrPortFrom(to.IP, faultPort))
	if err != nil {
		t.Fatal(err)
	}
	f.flow = flow
	t.Cleanup(func() {
		f.undisturbed()
		_, _ = flow.Stop()
	})
	if err := flow.WaitMove(ctx); err != nil {
		t.Fatal(err)
	}
	flow.Reset()
}

// undisturbed checks the flow.
func (f *faults) undisturbed() {
	f.t.Helper()
	r, err := f.flow.Result()
	if err != nil || r.Longest > faultPause {
		f.t.Errorf("a bystander's transfer paused for %v, error %v", r.Longest, err)
	}
}

// status asks an agent, which must answer soon whatever goes on.
func (f *faults) status(a *lab.Agent) *lab.Status {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
	defer cancel()
	s, err := a.Status(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// await waits until ok accepts the agent's status.
func (f *faults) await(t *testing.T, a *lab.Agent, within time.Duration, ok func(*lab.Status) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := a.WaitStatus(ctx, ok); err != nil {
		t.Error(err)
	}
}

// counted makes a function for await: the counter has grown to n.
func counted(name string, n uint64) func(*lab.Status) error {
	return func(s *lab.Status) error {
		if got := s.Counters[name]; got < n {
			return fmt.Errorf("%s is %d, want %d", name, got, n)
		}
		return nil
	}
}

// countsOnce calls send three times, and wants the agent to count each under the
// one counter named, and nothing else. Multicast is the kernel's own doing: it
// announces itself on every new link.
func (f *faults) countsOnce(t *testing.T, a *lab.Agent, counter string, send func()) {
	t.Helper()
	const times, noise = 3, "fabric_drop_total{multicast}"
	before := f.status(a).Counters
	for range times {
		send()
	}
	f.await(t, a, 10*time.Second, counted(counter, before[counter]+times))
	for name, n := range f.status(a).Counters {
		switch d := n - before[name]; {
		case name == noise:
		case name == counter && d != times:
			t.Errorf("%s grew by %d, want %d", name, d, times)
		case name != counter && d != 0:
			t.Errorf("%s grew by %d too", name, d)
		}
	}
}

// bounded checks that the agent's memory is what it may be under load.
func (f *faults) bounded(t *testing.T, a *lab.Agent, before int64) {
	t.Helper()
	after := resident(t, a.Process())
	t.Logf("memory: %d MB, %d MB before", after>>20, before>>20)
	limit := int64(faultMemory)
	if before > faultMemory/2 {
		limit = 4 * before // built with the race detector
	}
	if after > limit {
		t.Errorf("the agent takes %d MB", after>>20)
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

// snapshot takes the network state of a host.
func snapshot(t *testing.T, h *lab.Host) []string {
	t.Helper()
	lines, err := h.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// sameHost checks that nothing changed on a host.
func sameHost(t *testing.T, h *lab.Host, before []string) {
	t.Helper()
	if diff := cmp.Diff(before, snapshot(t, h)); diff != "" {
		t.Errorf("host %s changed (-before +after):\n%s", h.Name, diff)
	}
}

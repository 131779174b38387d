//go:build linux

package rootless_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"corax/integration/lab"
)

const podPort = 7500

// world is a cloud with a hub that has a TUN, and an edge whose gateway node has
// neither TUN nor privilege. Every pod serves.
type world struct {
	*lab.Topology
	t   *testing.T
	gw  *lab.Agent // of the edge
	far *lab.Pod   // of the cloud's plain node
	own *lab.Pod   // of the rootless node
}

// newWorld starts everything. args are further arguments of the rootless agent.
func newWorld(t *testing.T, ping bool, args ...string) *world {
	t.Helper()
	w := prepareWorld(t, ping, args...)
	w.start()
	return w
}

// prepareWorld is newWorld before the agents start.
func prepareWorld(t *testing.T, ping bool, args ...string) *world {
	t.Helper()
	w := &world{Topology: lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, NoCapture: true}), t: t}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := w.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	cloud, edge := w.Domains[0], w.Domains[1]
	w.gw, w.far, w.own = edge.Agents[0], cloud.Nodes[1].Pods[0], edge.Nodes[0].Pods[0]
	for _, n := range w.Nodes() {
		if _, err := n.Pods[0].Serve(podPort); err != nil {
			t.Fatal(err)
		}
	}
	if ping {
		w.gw.Host.AllowPing()
	} else {
		w.gw.Host.Sysctl("net/ipv4/ping_group_range", "1 0")
	}
	w.deprive(args...)
	return w
}

func (w *world) start() {
	w.t.Helper()
	w.startAgents()
	w.checkDeprivedTo("netstack", "")
}

func (w *world) startAgents() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	for _, a := range w.Agents() {
		if err := a.Start(); err != nil {
			w.t.Fatal(err)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, a := range w.Agents() {
		g.Go(func() error { return a.WaitReady(ctx) })
	}
	if err := g.Wait(); err != nil {
		w.t.Fatal(err)
	}
}

// deprive takes everything from the agent of the edge's gateway node.
func (w *world) deprive(args ...string) {
	w.t.Helper()
	if lab.DeprivedUser() != lab.Nobody {
		lacking(w.t, "this user namespace has one user only")
	}
	if err := w.gw.Deprive(); err != nil {
		w.t.Fatal(err)
	}
	w.gw.SetArgs(args...)
}

// checkDeprivedTo looks at the process itself, since a test with a privileged agent
// would show nothing, and at its datapath and the reason for that.
func (w *world) checkDeprivedTo(datapath, reason string) {
	w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.gw.Process().PID()))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, want := range []string{
		"Uid:\t65534\t65534\t65534\t65534\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n",
		"Seccomp:\t2\n",
	} {
		if !strings.Contains(string(b), want) {
			w.t.Fatalf("the agent has more than it should: no %q in\n%s", want, b)
		}
	}
	s := w.status()
	if s.Datapath != datapath || !strings.Contains(s.DatapathReason, reason) {
		w.t.Fatalf("datapath %s: %s", s.Datapath, s.DatapathReason)
	}
}

func (w *world) status() *lab.Status {
	w.t.Helper()
	s, err := w.gw.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// lacking skips a test that cannot run here, or fails where it has to.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

//go:build linux

package rootless_test

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"corax/integration/lab"
)

// usernsWorld is an edge whose gateway node's agent has no privilege, and whose pods are
// in the network namespace of a child user namespace of the same user.
type usernsWorld struct {
	*world
	workload *lab.Process // everything that lives in the namespace
	pid      int          // of one in it
	inner    *lab.Node    // the namespace
}

// TestUserns carries pods that live in a user namespace: with their own addresses, over
// the death of the agent, and until they are gone.
func TestUserns(t *testing.T) {
	w := newUsernsWorld(t)
	before := w.snapshot(t)
	w.gw.SetArgs("--datapath", "userns", "--netns", fmt.Sprint(w.pid), "--forward", fmt.Sprintf("tcp/%s=%s:%d", mapTCP, w.far.IP, podPort))
	w.startAgents()
	w.checkDeprivedTo("userns", fmt.Sprintf("a TUN in the network namespace of process %d", w.pid))

	t.Run("both ways", w.bothWays)
	t.Run("programs outside", w.outside)
	t.Run("pings outside", w.pings)
	t.Run("killed", w.killed)
	t.Run("stopped", func(t *testing.T) { w.stopped(t, before) })
	t.Run("without setns", w.withoutSetns)
	t.Run("namespace ends", w.ends)
}

func newUsernsWorld(t *testing.T) *usernsWorld {
	t.Helper()
	for _, name := range []string{"setpriv", "unshare", "ping"} {
		if _, err := exec.LookPath(name); err != nil {
			lacking(t, "no %s here", name)
		}
	}
	if lab.DeprivedUser() != lab.Nobody {
		lacking(t, "this user namespace has one user only")
	}
	w := &usernsWorld{world: &world{Topology: lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, NoCapture: true}), t: t}}
	if _, err := w.Prepare(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	cloud, edge := w.Domains[0], w.Domains[1]
	w.gw, w.far = edge.Agents[0], cloud.Nodes[1].Pods[0]
	if err := w.gw.DepriveToUserns(); err != nil {
		t.Fatal(err)
	}
	// The subnets of the node move into the namespace.
	outer := edge.Nodes[0]
	outer.DelLink(lab.CNIBridge)
	pids := w.startWorkload(t)
	w.pid = pids[0]
	w.inner = w.Lab.HostOf("inner", w.pid).Node(lab.NodeConfig{
		Subnets: outer.Subnets, ClusterCIDRs: lab.ClusterCIDRs(), Masquerade: lab.MasqLeavingNode, ForwardDrop: true,
	})
	w.own = w.inner.PodOf(w.Lab.HostOf("inner.pod", pids[1]), outer.Subnets...)
	for _, p := range []*lab.Pod{w.far, w.own} {
		if _, err := p.Serve(podPort); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// startWorkload makes a user and network namespace as user 65534, and a second network
// namespace in it for a pod. It returns a process of each.
func (w *usernsWorld) startWorkload(t *testing.T) []int {
	t.Helper()
	const script = `echo $$; unshare -n sh -c 'echo $$; exec sleep 3600' & wait`
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
		"unshare", "--user", "--map-root-user", "--net", "sh", "-c", script)
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = out
	w.workload, err = w.gw.Host.Start("workload", cmd)
	_ = out.Close()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
	pids := make([]int, 2)
	lines := bufio.NewReader(r)
	for i := range pids {
		line, err := lines.ReadString('\n')
		if err == nil {
			_, err = fmt.Sscan(line, &pids[i])
		}
		if err != nil {
			lacking(t, "no user namespace for an ordinary user: %v", err)
		}
	}
	return pids
}

// routeMTU is what of a route changes while the MTU of a path is searched.
var routeMTU = regexp.MustCompile(` mtu \d+ scope`)

// snapshot is the state of the namespace, without the kernel's own routes to its own
// addresses, which come when it finds the time.
func (w *usernsWorld) snapshot(t *testing.T) []string {
	t.Helper()
	lines, err := w.inner.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, " table 255 ") })
	for i, l := range lines {
		lines[i] = routeMTU.ReplaceAllString(l, " scope")
	}
	return lines
}

// bothWays reaches from pod to pod. Each sees the real address of the other.
func (w *usernsWorld) bothWays(t *testing.T) {
	ctx := within(t, 60*time.Second)
	for _, way := range []struct {
		name     string
		from, to *lab.Pod
	}{{"in", w.far, w.own}, {"out", w.own, w.far}} {
		for _, ip := range []struct{ from, to netip.Addr }{{way.from.IP, way.to.IP}, {way.from.IP6, way.to.IP6}} {
			at := netip.AddrPortFrom(ip.to, podPort)
			if got, err := way.from.WhoAmI(ctx, "tcp", at); err != nil || got != ip.from {
				t.Errorf("%s, TCP: %s sees %v, want %v: %v", way.name, ip.to, got, ip.from, err)
			}
			if got, err := way.from.WhoAmI(ctx, "udp", at); err != nil || got != ip.from {
				t.Errorf("%s, UDP: %s sees %v, want %v: %v", way.name, ip.to, got, ip.from, err)
			}
			if _, err := way.from.EchoUDP(ctx, at, 5000); err != nil {
				t.Errorf("%s, UDP in fragments: %v", way.name, err)
			}
			if _, err := way.from.Ping(ctx, ip.to, lab.PingOptions{}); err != nil {
				t.Errorf("%s, ping: %v", way.name, err)
			}
		}
		if _, err := way.from.Transfer(ctx, netip.AddrPortFrom(way.to.IP, podPort), 10<<20); err != nil {
			t.Errorf("%s: %v", way.name, err)
		}
	}
	// A program of the namespace itself has an address of the node's.
	bridge := w.inner.Subnets[0].Masked().Addr().Next()
	if got, err := w.inner.WhoAmI(ctx, "tcp", netip.AddrPortFrom(w.far.IP, podPort)); err != nil || got != bridge {
		t.Errorf("the pod sees %v, want %v: %v", got, bridge, err)
	}
}

// outside reaches a remote pod from the host of the agent, which has no route to it.
func (w *usernsWorld) outside(t *testing.T) {
	host := w.gw.Host
	if c, err := host.DialTCP(within(t, 2*time.Second), netip.AddrPortFrom(w.far.IP, podPort)); err == nil {
		_ = c.Close()
		t.Error("the host reaches the pod by itself: the test shows nothing")
	}
	bridge := w.inner.Subnets[0].Masked().Addr().Next()
	if got, err := host.WhoAmI(within(t, 20*time.Second), "tcp", netip.MustParseAddrPort(mapTCP)); err != nil || got != bridge {
		t.Errorf("the pod sees %v, want %v: %v", got, bridge, err)
	}
}

// pings reaches remote pods by pings of a program outside, where the namespace lets the
// group of the agent have ICMP sockets.
func (w *usernsWorld) pings(t *testing.T) {
	if r := w.run("ping", "-c", "1", "-W", "10", w.far.IP.String()); r.code != 1 || !strings.Contains(r.out, "Packet filtered") {
		t.Errorf("before it is allowed: %+v", r)
	}
	w.inner.Sysctl("net/ipv4/ping_group_range", fmt.Sprint(lab.Nobody, " ", lab.Nobody))
	defer w.inner.Sysctl("net/ipv4/ping_group_range", "1 0") // as it was
	for _, to := range []netip.Addr{w.far.IP, w.far.IP6} {
		if r := w.run("ping", "-c", "1", "-W", "10", to.String()); r.code != 0 {
			t.Errorf("%s: %+v", to, r)
		}
	}
}

// killed ends the agent with SIGKILL. Connections go on with the next one, and meanwhile
// nothing leaves in the clear.
func (w *usernsWorld) killed(t *testing.T) {
	in, err := w.far.StartFlow(within(t, 20*time.Second), netip.AddrPortFrom(w.own.IP, podPort))
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.own.StartFlow(within(t, 20*time.Second), netip.AddrPortFrom(w.far.IP6, podPort))
	if err != nil {
		t.Fatal(err)
	}
	helper := w.helper(t)
	had := w.snapshot(t)
	// Not its group: the helper is to find out by itself.
	if err := w.gw.Process().Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-w.gw.Process().Done()
	w.helperEnds(t, helper)
	if got := w.snapshot(t); !slices.Equal(got, had) {
		t.Errorf("what was in force is not as it was:\n%s", difference(had, got))
	}
	if err := w.gw.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*lab.Flow{in, out} {
		if err := f.WaitMove(within(t, 20*time.Second)); err != nil {
			t.Error(err)
		}
		if _, err := f.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// stopped ends the agent in order: then the namespace is as it was.
func (w *usernsWorld) stopped(t *testing.T, before []string) {
	if err := w.gw.WaitReady(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	helper := w.helper(t)
	if err := w.gw.Stop(); err != nil {
		t.Fatal(err)
	}
	w.helperEnds(t, helper)
	if got := w.snapshot(t); !slices.Equal(got, before) {
		t.Errorf("something of ours is left:\n%s", difference(before, got))
	}
}

// withoutSetns starts the agent under the filter of a container engine, and in another
// user's namespace.
func (w *usernsWorld) withoutSetns(t *testing.T) {
	if err := w.gw.Deprive(); err != nil {
		t.Fatal(err)
	}
	w.refused(t, "a seccomp filter is in force, as in containers, which has to allow setns: enter the user namespace: operation not permitted")
	if err := w.gw.DepriveToUserns(); err != nil {
		t.Fatal(err)
	}
}

// refused starts the agent, which ends with words in its log.
func (w *usernsWorld) refused(t *testing.T, words string) {
	t.Helper()
	if err := w.gw.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.gw.Process().Done():
	case <-t.Context().Done():
		t.Fatal("it does not end")
	}
	b, err := os.ReadFile(w.gw.LogFile())
	if w.gw.Process().Err() == nil || err != nil || !strings.Contains(string(b), words) {
		t.Errorf("it ended with %v, and %q is not in its log", w.gw.Process().Err(), words)
	}
}

// ends ends every process of the namespace.
func (w *usernsWorld) ends(t *testing.T) {
	if err := w.gw.Start(); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 60*time.Second)
	if err := w.gw.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.far.EchoTCP(ctx, netip.AddrPortFrom(w.own.IP, podPort), 100); err != nil {
		t.Fatal(err)
	}
	helper := w.helper(t)
	if err := w.workload.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.gw.WaitStatus(ctx, lab.Troubled("has no process any more")); err != nil {
		t.Fatal(err)
	}
	w.helperEnds(t, helper)
	until(within(t, 20*time.Second), t, func() error {
		_, _ = w.far.EchoUDP(within(t, 100*time.Millisecond), netip.AddrPortFrom(w.own.IP, podPort), 100)
		if w.status().Counters["tun_drop_total{write_failed}"] == 0 {
			return fmt.Errorf("what is sent to the pod is not counted as dropped")
		}
		return nil
	})
	// What is not about the namespace goes on.
	if err := w.gw.Ready(ctx); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(w.gw.LogFile())
	if err != nil || !strings.Contains(string(b), "the network namespace has no process any more") {
		t.Errorf("nothing in the log: %v", err)
	}
	if err := w.gw.Stop(); err != nil {
		t.Error(err)
	}
	// A new agent says what is wrong, at once.
	w.refused(t, fmt.Sprintf("corax: agent: --netns %d: userns: there is no process %d", w.pid, w.pid))
}

// helper returns the process that the agent has in the namespace.
func (w *usernsWorld) helper(t *testing.T) int {
	t.Helper()
	var pid int
	for _, thread := range threads(t, w.gw.Process().PID()) { // the one that forked has it
		if b, err := os.ReadFile(thread + "/children"); err == nil && len(b) > 0 {
			_, _ = fmt.Sscan(string(b), &pid)
		}
	}
	if pid == 0 {
		t.Fatal("the agent has no helper")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapEff:\t0000000000001000\n", "CapPrm:\t0000000000001000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the helper has more than it should: no %q in\n%s", want, status)
		}
	}
	return pid
}

func threads(t *testing.T, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/task", pid)
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, dir+"/"+e.Name())
	}
	return out
}

// helperEnds waits until a process is gone.
func (w *usernsWorld) helperEnds(t *testing.T, pid int) {
	t.Helper()
	until(within(t, 10*time.Second), t, func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

// difference lists the lines that only one of two has.
func difference(a, b []string) string {
	var out strings.Builder
	for _, l := range a {
		if !slices.Contains(b, l) {
			fmt.Fprintln(&out, "-", l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			fmt.Fprintln(&out, "+", l)
		}
	}
	return out.String()
}

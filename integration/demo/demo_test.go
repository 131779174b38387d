//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"corax/integration/lab"
)

// childEnv makes the test binary the demo itself.
const childEnv = "CORAX_DEMO_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
	}
	os.Exit(lab.Main(m))
}

// TestDemo runs the demo with real agents.
func TestDemo(t *testing.T) {
	l := lab.ForTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out strings.Builder
	if err := show(ctx, l, &out, rootless{}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, text := range []string{
		"gateway node of cloud", "peers        2, all reachable",
		"first byte arrived\n",
		"edge-a-gw to edge-b-gw: relay via cloud-gw (", "edge-b-gw to edge-a-gw: relay via cloud-gw (",
		"edge-a-gw to edge-b-gw: direct 203.0.113.20:", "edge-b-gw to edge-a-gw: direct 203.0.113.10:",
		"all 100 MB arrived, SHA-256 right", "relay via cloud-gw   direct 203.0.113.20:",
		"64 pings", "31 transfers with 484 MB in all,\nevery SHA-256 right, 64 UDP datagrams, 4 names resolved. No kernel tunnel was used.\n",
	} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in\n%s", text, out.String())
		}
	}
}

// TestDemoRootless runs the demo with rootless edges up to the transfer between
// them, and that with all nodes rootless.
func TestDemoRootless(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := chooseRootless("netstack", nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	d := &demo{out: &out, rootless: r}
	if err := d.steps(ctx, lab.ForTest(t)); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "The agents of the edges have no TUN and no privilege") {
		t.Errorf("printed\n%s", out.String())
	}
	if d.sums.pings == 0 || d.sums.transfers != 31-1 || d.sums.lookups != 4 {
		t.Errorf("counted %+v", d.sums)
	}
}

// TestDemoWithoutTUN: where no TUN can be had the demo says so, and passes, by
// itself.
func TestDemoWithoutTUN(t *testing.T) {
	l := lab.ForTest(t)                              // or skip
	if err := os.Chmod(l.Dir(), 0o755); err != nil { // for the agents' user, as t.TempDir is not
		t.Fatal(err)
	}
	corax, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sh", "-c", `mount -t tmpfs tmpfs /dev/net && exec "$@"`, "sh", self, "-corax", corax)
	child.Env = append(os.Environ(), childEnv+"=1", "TMPDIR="+l.Dir())
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Signal(os.Interrupt)
		_, _ = io.Copy(io.Discard, stdout)
		_ = child.Wait()
	}()
	var out strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		fmt.Fprintln(&out, lines.Text())
		if os.Getenv("CORAX_SOAK") == "" && strings.Contains(lines.Text(), "TCP, 10 MB each way") {
			break
		}
	}
	want := []string{
		"There is no TUN here", "cannot open /dev/net/tun (no such file or directory)", "TCP, 10 MB each way with SHA-256                ok",
	}
	if os.Getenv("CORAX_SOAK") != "" {
		want = append(want, "all 100 MB arrived, SHA-256 right", "4 names resolved. No kernel tunnel was used.\n")
	}
	for _, text := range want {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in\n%s", text, out.String())
		}
	}
}

func TestChooseRootless(t *testing.T) {
	none := errors.New("no /dev/net/tun")
	for _, tt := range []struct {
		flag       string
		noTUN      error
		edges, all bool
		fails      bool
	}{
		{"auto", nil, false, false, false},
		{"auto", none, true, true, false},
		{"tun", nil, false, false, false},
		{"tun", none, false, false, true},
		{"netstack", nil, true, false, false},
		{"netstack", none, true, true, false},
		{"", nil, false, false, true},
	} {
		r, err := chooseRootless(tt.flag, tt.noTUN)
		if r.edges != tt.edges || r.all != tt.all || (err != nil) != tt.fails {
			t.Errorf("%s, %v: %+v, %v", tt.flag, tt.noTUN, r, err)
		}
		if r.edges != (r.why != "") {
			t.Errorf("%s, %v: it says %q", tt.flag, tt.noTUN, r.why)
		}
	}
}

// TestInterrupted presses Ctrl-C in the middle of the demo: it says so, and
// neither a process nor a file is left.
func TestInterrupted(t *testing.T) {
	lab.ForTest(t) // or skip
	corax, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	child := exec.Command(self, "-corax", corax)
	child.Env = append(os.Environ(), childEnv+"=1", "TMPDIR="+dir)
	var errs bytes.Buffer
	child.Stderr = &errs
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the demo ended early: %v, %s", err, errs.String())
		}
		if strings.Contains(line, "start an agent") {
			break
		}
	}
	if agents(t, dir) != 6 {
		t.Errorf("%d agents run, want 6", agents(t, dir))
	}
	if err := child.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, lines)
	if err := child.Wait(); child.ProcessState.ExitCode() != 1 {
		t.Errorf("ended with %v", err)
	}
	if !strings.Contains(errs.String(), "corax demo: interrupted") {
		t.Errorf("it said %q", errs.String())
	}
	if n := agents(t, dir); n != 0 {
		t.Errorf("%d agents are left", n)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// agents counts the processes whose command line names a directory.
func agents(t *testing.T, dir string) int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), "\x00agent\x00") && strings.Contains(string(b), dir) {
			n++
		}
	}
	return n
}

// TestTraffic runs the demo's traffic over plain kernel routing: it must pass
// where the network works, whatever the agents do.
func TestTraffic(t *testing.T) {
	l := lab.ForTest(t)
	d := &demo{out: io.Discard}
	if err := d.build(l); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	d.topo.RoutePlain()
	for _, step := range []func(context.Context) error{d.ping, d.transfer, d.datagrams, d.service} {
		if err := step(ctx); err != nil {
			t.Error(err)
		}
	}
	// 2 cloud pods, 4 edge pods, both ways, 2 families.
	if s := d.sums; s.pings != 2*32 || s.datagrams != 2*32 || s.transfers != 16+2+4 || s.lookups != 4 {
		t.Errorf("sent %+v", s)
	}
}

// TestStaysRelayed gives one edge a NAT with a random port for each destination,
// and the other one the same: the demo must not say that they became direct.
func TestStaysRelayed(t *testing.T) {
	l := lab.ForTest(t)
	var out strings.Builder
	d := &demo{out: &out}
	if err := d.build(l); err != nil {
		t.Fatal(err)
	}
	for _, domain := range d.topo.Domains[1:] {
		domain.Router.SetNAT(lab.NAT{Mapping: lab.MapRandom})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := d.topo.Start(ctx, "--stun-server", stunServer.String()); err != nil {
		t.Fatal(err)
	}
	err := d.edgeToEdge(ctx)
	if err == nil || !strings.Contains(err.Error(), "the path from edge-a-gw to edge-b-gw is relay: ") {
		t.Errorf("%v", err)
	}
	if text := out.String(); !strings.Contains(text, ": relay via cloud-gw (") || strings.Contains(text, ": direct ") {
		t.Errorf("printed\n%s", text)
	}
}

// TestTrafficFails checks that the steps notice a network that does not work.
func TestTrafficFails(t *testing.T) {
	l := lab.ForTest(t)
	d := &demo{out: io.Discard}
	if err := d.build(l); err != nil {
		t.Fatal(err)
	}
	if _, err := d.topo.Prepare(t.Context()); err != nil { // no agent runs
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	for i, step := range []func(context.Context) error{d.ping, d.transfer, d.datagrams, d.hosts, d.service, d.edgeToEdge} {
		if err := step(ctx); err == nil {
			t.Errorf("step %d passed without a network", i)
		}
	}
	if d.sums.bytes != 0 {
		t.Errorf("counted %+v", d.sums)
	}
}

func TestHiddenSourceIsNoticed(t *testing.T) {
	l := lab.ForTest(t)
	d := &demo{out: io.Discard}
	if err := d.build(l); err != nil {
		t.Fatal(err)
	}
	d.topo.RoutePlain()
	d.topo.Domains[1].Router.SetNAT(lab.NAT{Mapping: lab.MapKeepPort})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := d.datagrams(ctx); err == nil || !strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
}

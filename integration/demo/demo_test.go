//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	if err := show(ctx, l, &out); err != nil {
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

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
	"regexp"
	"strings"
	"testing"
	"time"

	"corax/integration/kube/cluster"
	"corax/integration/kube/kubelet"
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

// TestDemo runs the demo.
func TestDemo(t *testing.T) {
	cluster.Tools(t)
	l := lab.ForTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out strings.Builder
	if err := show(ctx, l, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	patterns := []string{
		`\ncloud +cloud-\w+ +PublicIP 203\.0\.113\.\d+ +3 +3/3 `, `\nedge-a +edge-a-\w+ +3 +3/3 `, `\nedge-b +edge-b-\w+ +2 +2/2 `,
		`\nedge-b-1 +Ready .* edge-b +edge-b\n`,
		"gateway node of cloud", "peers +7, all reachable",
		`s  \d+\.\d MB have arrived; edge-a-\w+, the gateway node, dies`,
		`s  edge-a-\w+ is the gateway node of edge-a\n`, `s  bytes arrive again, after \d+\.\d s\n`,
		`all 96 MB arrived, SHA-256 right; TCP was away for`,
		`ActiveEndpointLost +gateway/edge-a +node edge-a-\w+ is no active .*: agent dead: Lease lapsed; active now: edge-a-`,
		`ActiveEndpointElected +gateway/edge-a `,
		`\nedge-a +edge-a-\w+ +3 +2/3 `,
		"returns, as a standby +ok ",
		`\d\d pings, 7 transfers with 216 MB in all, every SHA-256 right,`,
	}
	switch err := kubelet.Missing(); {
	case err == nil:
		for _, node := range []string{"edge-a-1", "edge-b-1"} {
			patterns = append(patterns, `\nweb-`+node+` +`+node+` +192\.168\.1\.11 +Running\n`,
				`\$ kubectl logs web-`+node+`\nhello from `+node+`\n`, `\nthis is `+node+`, uid 0\n`)
		}
	case os.Getenv("CI") != "":
		t.Error(err)
	default:
		patterns = append(patterns, "Left out: kubectl logs and exec")
	}
	for _, pattern := range patterns {
		if !regexp.MustCompile(pattern).MatchString(out.String()) {
			t.Errorf("nothing fits %q in\n%s", pattern, out.String())
		}
	}
}

// TestInterrupted presses Ctrl-C while the agents start: it says so, and neither a
// process nor a file is left.
func TestInterrupted(t *testing.T) {
	cluster.Tools(t)
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
	out := bufio.NewReader(stdout)
	var seen strings.Builder
	for !strings.Contains(seen.String(), "start an agent") {
		b, err := out.ReadByte()
		if err != nil {
			t.Fatalf("the demo ended early: %v, %s\n%s", err, errs.String(), seen.String())
		}
		seen.WriteByte(b)
	}
	if n := processes(t, dir); n < 3 {
		t.Errorf("%d processes run, not etcd, API server and controller", n)
	}
	if err := child.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	if err := child.Wait(); child.ProcessState.ExitCode() != 1 {
		t.Errorf("ended with %v", err)
	}
	if !strings.Contains(errs.String(), "corax demo: interrupted") {
		t.Errorf("it said %q", errs.String())
	}
	if n := processes(t, dir); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// processes counts the processes whose command line names a directory.
func processes(t *testing.T, dir string) int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), dir) {
			n++
		}
	}
	return n
}

//go:build linux

package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"corax/integration/lab"
)

// running is a kubectl that goes on: what it writes comes line by line.
type running struct {
	*lab.Process
	name  string
	in    *os.File
	lines chan string

	mu   sync.Mutex
	errs bytes.Buffer
}

// start starts kubectl where the control plane is.
func (w *world) start(t *testing.T, args ...string) *running {
	t.Helper()
	cmd := w.Cluster.KubectlCommand(args...)
	r := &running{name: "kubectl " + strings.Join(args, " "), lines: make(chan string, 100000)}
	in, stdin, err := os.Pipe()
	must(t, err)
	stdout, out, err := os.Pipe()
	must(t, err)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, r
	r.Process, err = w.Control.Start("kubectl", cmd)
	_, _ = in.Close(), out.Close()
	must(t, err)
	r.in = stdin
	go func() {
		defer close(r.lines)
		defer func() { _ = stdout.Close() }()
		scan := bufio.NewScanner(stdout)
		for scan.Scan() {
			r.lines <- scan.Text()
		}
	}()
	t.Cleanup(func() { _ = r.Kill() })
	return r
}

// Write takes what it says on standard error.
func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.errs.Write(p)
}

func (r *running) stderr() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.TrimSpace(r.errs.String())
}

// line waits for the next line.
func (r *running) line(t *testing.T, within time.Duration) string {
	t.Helper()
	select {
	case s, ok := <-r.lines:
		if !ok {
			t.Fatalf("%s ended: %s", r.name, r.stderr())
		}
		return s
	case <-time.After(within):
		t.Fatalf("%s wrote nothing for %v: %s", r.name, within, r.stderr())
	}
	return ""
}

// say writes a line to its standard input.
func (r *running) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(r.in, line+"\n"); err != nil {
		t.Fatalf("%s: %v", r.name, err)
	}
}

// end waits until it has ended and returns its exit code.
func (r *running) end(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-r.Done():
		return exitCode(r.Err())
	case <-time.After(within):
		t.Fatalf("%s has not ended after %v: %s", r.name, within, r.stderr())
	}
	return 0
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as Wait returns it
		return e.ExitCode()
	}
	return -1
}

// kubectl runs it to its end; an error is fatal.
func (w *world) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.Cluster.Kubectl(t, nil, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// raw asks the API server for a path.
func (w *world) raw(ctx context.Context, path string) (string, error) {
	b, err := w.Cluster.Client.RESTClient().Get().AbsPath(path).Do(ctx).Raw()
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return string(b), err
}

//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// fill takes what is left of the file system of a directory, as the host sees
// it.
func fill(h *lab.Host, dir string) error {
	return h.Do(func() error {
		f, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		for {
			if _, err := f.Write(make([]byte, 512)); err != nil {
				if errors.Is(err, unix.ENOSPC) {
					return nil
				}
				return err
			}
		}
	})
}

func unfill(h *lab.Host, dir string) error {
	return h.Do(func() error { return os.Remove(filepath.Join(dir, "filler")) })
}

// smallDisk puts a state directory on a file system of its own, which is full.
func smallDisk(t *testing.T, a *lab.Agent, files map[string][]byte) {
	t.Helper()
	dir := a.StateDir()
	err := a.Host.Do(func() error {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
			return err
		}
		for name, b := range files {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = fill(a.Host, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk runs a gateway node whose state directory is full: it works, says
// what it could not save, and saves it when there is room.
func TestFullDisk(t *testing.T) {
	f := prepareFaults(t, lab.Options{})
	a := f.edge().Agents[0]
	private, err := os.ReadFile(filepath.Join(a.StateDir(), "private.key"))
	if err != nil {
		t.Fatal(err)
	}
	smallDisk(t, a, map[string][]byte{"private.key": private})
	for _, a := range f.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	f.ready(ctx)
	f.startFlow(ctx)
	f.await(t, a, 20*time.Second, lab.Troubled("memory.json: write "))
	f.await(t, a, time.Second, lab.Troubled("no space left on device"))
	if err := unfill(a.Host, a.StateDir()); err != nil {
		t.Fatal(err)
	}
	f.await(t, a, 20*time.Second, lab.Untroubled)
	var left []os.DirEntry
	err = a.Host.Do(func() (err error) {
		left, err = os.ReadDir(a.StateDir())
		return err
	})
	if err != nil || len(left) != 2 {
		t.Errorf("in the state directory: %v, %v", left, err)
	}
}

// TestFullDiskKey makes no key on a full disk, says why, and leaves nothing that
// stands in the way of a key when there is room.
func TestFullDiskKey(t *testing.T) {
	l := lab.ForTest(t)
	h := l.Host("node")
	h.AddAddr("lo", netip.MustParsePrefix("192.0.2.1/32"))
	a, err := h.NewAgent(lab.AgentConfig{NodeIP: netip.MustParseAddr("192.0.2.1"), Gateways: l.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(a.StateDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	smallDisk(t, a, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := a.Key(ctx); err == nil || !strings.Contains(err.Error(), "corax: key: write private key: ") || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("corax key: %v", err)
	}
	wantRefusal(t, a, 1, "no space left on device")
	if err := unfill(h, a.StateDir()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Key(ctx); err != nil {
		t.Error(err)
	}
}

// wantRefusal starts an agent and wants it to end soon with an exit code and
// one line that says all the texts.
func wantRefusal(t *testing.T, a *lab.Agent, code int, texts ...string) {
	t.Helper()
	before, _ := os.ReadFile(a.LogFile())
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.Process().Done():
	case <-time.After(10 * time.Second):
		_ = a.Kill()
		t.Errorf("the agent runs; it should refuse: %q", texts)
		return
	}
	log, err := os.ReadFile(a.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	line := ""
	for l := range strings.Lines(string(log[len(before):])) {
		if strings.HasPrefix(l, "corax: ") {
			line = l
		}
	}
	for _, text := range texts {
		if !strings.Contains(line, text) {
			t.Errorf("the agent says %q, want %q", line, text)
		}
	}
	if got := exitCode(a.Process()); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
}

// exitCode is that of a process that has ended.
func exitCode(p *lab.Process) int {
	err := p.Stop(time.Second)
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

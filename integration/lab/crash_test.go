//go:build linux

package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crashEnv makes the test binary build a lab, say what it consists of, and wait
// to be killed; its value is the lab's directory.
const crashEnv = "CORAX_LAB_TEST_CRASH"

func crashMain() int {
	l, err := New(Config{Dir: os.Getenv(crashEnv)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	topo := Standard(l, Options{Nodes: 1})
	if err := l.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, n := range topo.Nodes() {
		p, err := n.Start("sleeper", exec.Command("sleep", "600"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println("pid", p.PID())
	}
	for _, h := range l.Hosts() {
		ns, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", h.space.netns.Fd()))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println("netns", ns)
	}
	fmt.Println("up")
	select {}
}

// TestKilledLabLeavesNothing kills a process with a whole topology in it.
func TestKilledLabLeavesNothing(t *testing.T) {
	if err := Usable(); err != nil {
		t.Skip(err)
	}
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGINT, unix.SIGTERM} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), crashEnv+"="+t.TempDir())
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var pids, spaces []string
			up := false
			for s := bufio.NewScanner(out); !up && s.Scan(); {
				kind, value, _ := strings.Cut(s.Text(), " ")
				switch kind {
				case "pid":
					pids = append(pids, value)
				case "netns":
					spaces = append(spaces, value)
				case "up":
					up = true
				}
			}
			if !up || len(pids) != 3 || len(spaces) != 9 {
				t.Fatalf("the lab did not come up: %d processes, %d namespaces", len(pids), len(spaces))
			}
			if found := namespacesInUse(t); !found[spaces[0]] {
				t.Fatalf("%s is not found while the lab runs", spaces[0])
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			ctx := ctxFor(t, 10*time.Second)
			for _, p := range pids {
				pid, err := strconv.Atoi(p)
				if err != nil {
					t.Fatal(err)
				}
				if err := poll(ctx, 10*time.Millisecond, func() error { return gone(pid) }); err != nil {
					t.Error(err)
				}
			}
			found := namespacesInUse(t)
			for _, ns := range spaces {
				if found[ns] {
					t.Errorf("network namespace %s is still in use", ns)
				}
			}
		})
	}
}

// gone returns an error while a process runs; a zombie does not.
func gone(pid int) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	if _, rest, ok := strings.Cut(string(b), ") "); ok && strings.HasPrefix(rest, "Z") {
		return nil
	}
	return fmt.Errorf("process %d still runs", pid)
}

// namespacesInUse returns the network namespaces of all threads and descriptors.
func namespacesInUse(t *testing.T) map[string]bool {
	found := make(map[string]bool)
	for _, pattern := range []string{"/proc/[0-9]*/task/[0-9]*/ns/net", "/proc/[0-9]*/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if target, err := os.Readlink(p); err == nil && strings.HasPrefix(target, "net:[") {
				found[target] = true
			}
		}
	}
	return found
}

// TestCloseLeavesNothing closes a lab in this process.
func TestCloseLeavesNothing(t *testing.T) {
	if err := Usable(); err != nil {
		t.Skip(err)
	}
	l, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	topo := Standard(l, Options{Nodes: 1})
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	p, err := topo.Nodes()[0].Start("sleeper", exec.Command("sleep", "600"))
	if err != nil {
		t.Fatal(err)
	}
	var spaces []string
	for _, h := range l.Hosts() {
		ns, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", h.space.netns.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		spaces = append(spaces, ns)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gone(p.PID()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.Dir()); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", l.Dir(), err)
	}
	// The kernel ends a thread a moment after its goroutine.
	err = poll(ctxFor(t, 10*time.Second), 10*time.Millisecond, func() error {
		found := namespacesInUse(t)
		for _, ns := range spaces {
			if found[ns] {
				return fmt.Errorf("network namespace %s is still in use", ns)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := topo.Nodes()[0].Do(func() error { return nil }); err == nil {
		t.Error("a closed host still runs functions")
	}
}

// TestHostDirectories checks what a process on a host sees.
func TestHostDirectories(t *testing.T) {
	l := ForTest(t)
	a, b := l.Host("a"), l.Host("b")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Run(ctx, "sh", "-c", "mkdir -p /run/corax && echo a > /run/corax/mine"); err != nil {
		t.Fatal(err)
	}
	if out, err := a.Run(ctx, "cat", "/run/corax/mine"); err != nil || string(out) != "a\n" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := b.Run(ctx, "cat", "/run/corax/mine"); err == nil {
		t.Errorf("host b sees %q of host a", out)
	}
	if _, err := os.Stat("/run/corax/mine"); err == nil {
		t.Error("the machine sees a host's /run")
	}
	machine, _ := os.ReadFile("/etc/resolv.conf")
	a.Resolv(prefixes("10.96.0.2/32")[0].Addr())
	if out, err := a.Run(ctx, "cat", "/etc/resolv.conf"); err != nil || string(out) != "nameserver 10.96.0.2\n" {
		t.Errorf("%q, %v", out, err)
	}
	if now, _ := os.ReadFile("/etc/resolv.conf"); string(now) != string(machine) {
		t.Error("the machine's resolv.conf changed")
	}
	if _, err := a.Run(ctx, "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("error of a failed program: %v", err)
	}
}

// deafCommand is a program that ignores SIGTERM.
func deafCommand() *exec.Cmd {
	return exec.Command("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")
}

//go:build linux

package rootless_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// memoryGroup is a control group with a memory limit.
type memoryGroup struct {
	dir string
	v1  bool
}

// newMemoryGroup makes a group of version 2 where it has the memory controller, else
// of version 1, and says which.
func newMemoryGroup(t *testing.T, limit int64) *memoryGroup {
	t.Helper()
	g, err := openMemoryGroup(fmt.Sprintf("corax-test-%d", os.Getpid()), limit)
	if err != nil {
		lacking(t, "no memory control group: %v", err)
	}
	t.Logf("memory control group of version %d, %d MB: %s", map[bool]int{true: 1, false: 2}[g.v1], limit>>20, g.dir)
	t.Cleanup(func() { _ = os.Remove(g.dir) })
	return g
}

func openMemoryGroup(name string, limit int64) (*memoryGroup, error) {
	var errs []error
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		have, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		if !strings.Contains(string(have), "memory") {
			continue
		}
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0)
		g := &memoryGroup{dir: filepath.Join(root, name)}
		if err := g.open("memory.max", limit); err == nil {
			_ = g.write("memory.swap.max", 0) // there without swap accounting only
			return g, nil
		} else {
			errs = append(errs, err)
		}
	}
	g := &memoryGroup{dir: filepath.Join("/sys/fs/cgroup/memory", name), v1: true}
	if err := g.open("memory.limit_in_bytes", limit); err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	_ = g.write("memory.memsw.limit_in_bytes", limit)
	return g, nil
}

func (g *memoryGroup) open(file string, limit int64) error {
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := g.write(file, limit); err != nil {
		_ = os.Remove(g.dir)
		return err
	}
	return nil
}

func (g *memoryGroup) write(file string, n int64) error {
	return os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.FormatInt(n, 10)), 0)
}

// number reads a number, of the line that begins with word, if that is not empty.
func (g *memoryGroup) number(t *testing.T, file, word string) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if word != "" && (len(f) != 2 || f[0] != word) || len(f) == 0 {
			continue
		}
		n, err := strconv.ParseInt(f[len(f)-1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatalf("%s has no %q: %s", file, word, b)
	return 0
}

// kills is how many processes the kernel killed in the group for want of memory.
func (g *memoryGroup) kills(t *testing.T) int64 {
	if g.v1 {
		return g.number(t, "memory.oom_control", "oom_kill")
	}
	return g.number(t, "memory.events", "oom_kill")
}

// used is what the group uses now, cache included, and how often it was full.
func (g *memoryGroup) used(t *testing.T) (bytes, full int64) {
	if g.v1 {
		return g.number(t, "memory.usage_in_bytes", ""), g.number(t, "memory.failcnt", "")
	}
	return g.number(t, "memory.current", ""), g.number(t, "memory.events", "max")
}

// program writes a program to dir that is binary in the group. Its pages are not in
// the page cache then, and so are the group's as soon as they are read.
func (g *memoryGroup) program(t *testing.T, dir, binary string) string {
	t.Helper()
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "small")
	f, err := os.OpenFile(own, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.Write(b); err == nil {
		if err = f.Sync(); err == nil {
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%s/cgroup.procs && exec %s \"$@\"\n", g.dir, own)
	path := filepath.Join(dir, "in-group")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

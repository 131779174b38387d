package main

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// unlimited is above every limit that somebody meant: control groups of version 1
// without one say the largest number of pages.
const unlimited = 1 << 50

// findMemory reads what bounds the memory of this process. root is the root of the
// file system, for tests another one; environment is what debug.SetMemoryLimit(-1)
// says. What cannot be read bounds nothing.
func findMemory(root fs.FS, environment int64) memoryLimits {
	m := memoryLimits{cgroup: cgroupMemory(root), machine: memTotal(root)}
	if environment > 0 && environment < math.MaxInt64 {
		m.environment = environment
	}
	return m
}

// memTotal is the memory of the machine, in bytes.
func memTotal(root fs.FS) int64 {
	b, _ := fs.ReadFile(root, "proc/meminfo")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			if n := whole(f[1]); n < unlimited>>10 {
				return n << 10
			}
		}
	}
	return 0
}

// cgroupMemory is the least limit of the control group and those above it, of
// whichever version has the memory controller; zero: none. Inside a container the
// groups above are not to be seen, and its own is at the mount itself.
func cgroupMemory(root fs.FS) int64 {
	own := ownGroups(root)
	var least int64
	for _, m := range groupMounts(root) {
		file := "memory.max"
		group, ok := own[""]
		if m.v1 {
			file = "memory.limit_in_bytes"
			group, ok = own["memory"]
		}
		if !ok {
			continue
		}
		for dir := m.dir(group); ; dir = path.Dir(dir) {
			b, _ := fs.ReadFile(root, path.Join(dir, file))
			if n := whole(strings.TrimSpace(string(b))); n > 0 && n < unlimited && (least == 0 || n < least) {
				least = n
			}
			if len(dir) <= len(m.at) {
				break
			}
		}
	}
	return least
}

// whole parses a number that is not negative; anything else, "max" among it, is
// zero.
func whole(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// ownGroups returns the control group of this process by controller; that of
// version 2 has the empty name.
func ownGroups(root fs.FS) map[string]string {
	out := map[string]string{}
	b, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		if f[0] == "0" && f[1] == "" {
			out[""] = path.Clean(f[2])
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			out[c] = path.Clean(f[2])
		}
	}
	return out
}

// groupMount is where control groups are seen: group base of the hierarchy at the
// directory at, which does not begin with a slash.
type groupMount struct {
	base, at string
	v1       bool
}

// dir returns where a group is seen, or else the mount itself.
func (m groupMount) dir(group string) string {
	rest, ok := strings.CutPrefix(group, m.base)
	if !ok || m.base != "/" && rest != "" && rest[0] != '/' {
		return m.at
	}
	dir := path.Join(m.at, rest)
	if dir != m.at && !strings.HasPrefix(dir, m.at+"/") {
		return m.at // a group outside of our namespace: /..
	}
	return dir
}

// groupMounts returns the mounts of version 2, and of the memory controller of
// version 1 (proc_pid_mountinfo(5)).
func groupMounts(root fs.FS) []groupMount {
	var out []groupMount
	b, _ := fs.ReadFile(root, "proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 5 || len(g) < 3 || !strings.HasPrefix(f[4], "/") {
			continue
		}
		m := groupMount{base: path.Clean(f[3]), at: strings.TrimPrefix(path.Clean(f[4]), "/")}
		switch {
		case g[0] == "cgroup2":
		case g[0] == "cgroup" && slices.Contains(strings.Split(g[2], ","), "memory"):
			m.v1 = true
		default:
			continue
		}
		if fs.ValidPath(m.at) {
			out = append(out, m)
		}
	}
	return out
}

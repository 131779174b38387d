package main

import (
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"corax/proxy"
)

const (
	// streamShare is the part of the process's memory that streams may hold.
	streamShare = 4
	// assumedMemory is what there is where nobody says so, in bytes.
	assumedMemory = 1 << 30
)

// streamLimits bound what streams may hold to a part of what the process may.
func streamLimits() proxy.Limits {
	return proxy.Limits{Memory: processMemory(debug.SetMemoryLimit(-1), os.DirFS("/")) / streamShare}
}

// processMemory is how many bytes the process may use: what the Go runtime was told
// when it was, else the least of what its control groups and the machine allow.
func processMemory(runtime int64, root fs.FS) int64 {
	if runtime < math.MaxInt64 {
		return runtime
	}
	least := int64(math.MaxInt64)
	for _, l := range append(cgroupLimits(root), machineMemory(root)) {
		if l > 0 {
			least = min(least, l)
		}
	}
	if least == math.MaxInt64 {
		return assumedMemory
	}
	return least
}

// cgroupLimits are those of the process's control groups and of the ones around
// them, of both versions.
func cgroupLimits(root fs.FS) []int64 {
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	var all []int64
	for line := range strings.Lines(string(b)) {
		// As 0::/path, or 9:memory:/path.
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		kinds, at, _ := strings.Cut(rest, ":")
		dir, file := "sys/fs/cgroup", "memory.max"
		if kinds == "memory" {
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if kinds != "" {
			continue
		}
		for at = path.Clean("/" + at); ; at = path.Dir(at) {
			if b, err := fs.ReadFile(root, path.Join(dir, at, file)); err == nil {
				n, _ := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64) // "max" is none
				all = append(all, n)
			}
			if at == "/" {
				break
			}
		}
	}
	return all
}

// machineMemory is all of the machine's; zero: not known.
func machineMemory(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

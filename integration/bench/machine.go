//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine describes what the figures depend on, in one line.
func machine() string {
	var u unix.Utsname
	kernel := "unknown"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%d x %s, Linux %s, %s, load %s; pods' MTU %d",
		runtime.NumCPU(), processor(), kernel, runtime.Version(), load(), podMTU)
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

const (
	quietSample = 300 * time.Millisecond
	quietShare  = 0.1 // of all processors
)

// awaitQuiet waits until other programs leave the machine alone, but not longer
// than limit: figures taken beside a compiler say little.
func awaitQuiet(ctx context.Context, limit time.Duration) error {
	for start := time.Now(); time.Since(start) < limit; {
		before, err := cpuOfMachine()
		if err != nil {
			return err
		}
		if err := wait(ctx, quietSample); err != nil {
			return err
		}
		after, err := cpuOfMachine()
		if err != nil {
			return err
		}
		if (after - before).Seconds() <= quietShare*quietSample.Seconds()*float64(runtime.NumCPU()) {
			return nil
		}
	}
	return nil
}

// load returns the average load of the last minute: at the start of a good run
// it is near 0.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

// binarySize returns the size of a file in bytes; 0 when it cannot be read.
func binarySize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

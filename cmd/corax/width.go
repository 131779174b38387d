package main

import (
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
)

// garbage is how much the heap may grow between two collections, in percent. Half
// of the heap are packet buffers of which a few bytes are ever touched, so this is
// twice as much of what is resident; packets make no garbage, so that a small
// number costs them nothing.
const garbage = 25

// maxWidth is the most threads that run packets.
const maxWidth = 4

// fitRuntime chooses the profile of this process, once, and fits the Go runtime to
// it and to the machine.
//
// The packet path is a chain of short stages (read, encrypt, send), and on a
// small machine the wake-ups between threads cost more than the cryptography: with two
// cores one thread carries as much as two, for less CPU time (docs/performance.md). So
// the agent leaves half of the cores to the pods, at least one and at most four for
// itself. GOMAXPROCS, GOGC and GOMEMLIMIT in the environment win, as always in Go.
func fitRuntime(want profileName, log *slog.Logger) profile {
	environment := int64(0)
	if os.Getenv("GOMEMLIMIT") != "" {
		environment = debug.SetMemoryLimit(-1)
	}
	p := chooseProfile(want, findMemory(os.DirFS("/"), environment))
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(width(runtime.GOMAXPROCS(0)), p.width))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(p.gc)
	}
	if p.heap != 0 {
		debug.SetMemoryLimit(p.heap)
	}
	log.Info("memory profile", "profile", string(p.name), "why", p.why, "limitBytes", p.limit, "heapLimitBytes", p.heap, "threads", runtime.GOMAXPROCS(0))
	return p
}

// width says how many threads run packets on a machine with the given number
// of usable CPUs (the cgroup's quota counts: the Go runtime has applied it).
func width(cpus int) int {
	return max(1, min(cpus/2, maxWidth))
}

package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// garbage is how much the heap may grow between two collections, in percent. Half
// of the heap are packet buffers of which a few bytes are ever touched, so this is
// twice as much of what is resident; packets make no garbage, so that a small
// number costs them nothing.
const garbage = 25

// setWidth fits the Go runtime to the machine.
//
// The packet path is a chain of short stages (read, encrypt, send), and on a
// small machine the wake-ups between threads cost more than the cryptography:
// with two cores one thread carries more than two (docs/performance.md). So the
// agent leaves half of the cores to the pods, at least one and at most four for
// itself. GOMAXPROCS and GOGC in the environment win, as always in Go.
func setWidth() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(width(runtime.GOMAXPROCS(0)))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
}

// width says how many threads run packets on a machine with the given number
// of usable CPUs (the cgroup's quota counts: the Go runtime has applied it).
func width(cpus int) int {
	return max(1, min(cpus/2, 4))
}

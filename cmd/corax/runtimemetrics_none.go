//go:build nokube

package main

import (
	"bytes"
	"io"
	"os"
	"runtime/metrics"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// runtimeSamples are the metrics of the Go runtime that are served without the
// Prometheus library, under its names.
var runtimeSamples = []struct{ name, from, help string }{
	{"go_goroutines", "/sched/goroutines:goroutines", "Goroutines that exist."},
	{"go_memstats_heap_alloc_bytes", "/memory/classes/heap/objects:bytes", "Bytes of objects on the heap."},
	{"go_memstats_next_gc_bytes", "/gc/heap/goal:bytes", "Size of the heap at which the next collection ends."},
	{"go_memstats_sys_bytes", "/memory/classes/total:bytes", "Bytes that the Go runtime has mapped."},
}

// newRuntimeMetrics returns what writes the metrics that every Go program has, in
// the text format: the most important ones.
func newRuntimeMetrics() func(io.Writer) error {
	started := float64(time.Now().UnixMilli()) / 1000
	return func(w io.Writer) error {
		out := exposition{}
		samples := make([]metrics.Sample, len(runtimeSamples))
		for i := range samples {
			samples[i].Name = runtimeSamples[i].from
		}
		metrics.Read(samples)
		for i, s := range samples {
			if s.Value.Kind() == metrics.KindUint64 {
				out.put(runtimeSamples[i].name, runtimeSamples[i].help, kindGauge, "", float64(s.Value.Uint64()), nil)
			}
		}
		out.put("process_start_time_seconds", "When the agent started.", kindGauge, "", started, nil)
		processMetrics(out)
		_, err := w.Write(out.text())
		return err
	}
}

// processMetrics adds what the kernel knows of this process; what it does not tell
// is left out.
func processMetrics(out exposition) {
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) == nil {
		cpu := time.Duration(use.Utime.Nano() + use.Stime.Nano())
		out.put("process_cpu_seconds_total", "Time on the processors.", kindCounter, "", cpu.Seconds(), nil)
	}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		out.put("process_open_fds", "Open files and sockets.", kindGauge, "", float64(len(files)), nil)
	}
	b, _ := os.ReadFile("/proc/self/statm")
	pages := bytes.Fields(b)
	for i, name := range []string{"process_virtual_memory_bytes", "process_resident_memory_bytes"} {
		if len(pages) > i {
			if n, err := strconv.ParseUint(string(pages[i]), 10, 64); err == nil {
				out.put(name, "Memory of the process.", kindGauge, "", float64(n)*float64(os.Getpagesize()), nil)
			}
		}
	}
}

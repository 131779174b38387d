//go:build linux

package main

import (
	"os"
	"testing"
	"time"
)

func TestProcessCPU(t *testing.T) {
	// A name with spaces and parentheses must not shift the fields.
	stat := "4711 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1 0 100 1 1\n"
	parent, got, err := processCPU([]byte(stat))
	if err != nil || parent != 1 || got != 1750*time.Millisecond {
		t.Errorf("parent %d, %v, %v", parent, got, err)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1 2", "1 (x) S 1 2 3 4 5 6 7 8 9 10 a 25", "1 (x) S y 2 3 4 5 6 7 8 9 10 1 25"} {
		if _, got, err := processCPU([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestMachineCPU(t *testing.T) {
	got, err := machineCPU([]byte("cpu  100 20 30 99999 88888 4 6 777 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"))
	if err != nil || got != 1600*time.Millisecond {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8"} {
		if got, err := machineCPU([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestProcessMemory(t *testing.T) {
	got, err := processMemory([]byte("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n"))
	if err != nil || got != (memory{now: 1 << 20, peak: 2 << 20}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "VmRSS: 1 kB\n", "VmRSS: 1 kB\nVmHWM: x kB\n"} {
		if got, err := processMemory([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// TestOwn reads this kernel's own files.
func TestOwn(t *testing.T) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := processMemory(status); err != nil || m.now == 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if d, err := cpuOfMachine(); err != nil || d <= 0 {
		t.Errorf("%v, %v", d, err)
	}
	if d, err := cpuOf(nil); err != nil || d != 0 {
		t.Errorf("no process: %v, %v", d, err)
	}
}

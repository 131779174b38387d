package main

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLoad(t *testing.T) {
	const ms = time.Millisecond
	var l cpuLoad
	for i, step := range []struct {
		used, elapsed time.Duration
		busy          bool
	}{
		{0, 250 * ms, false},
		{24 * ms, 250 * ms, false},
		{25 * ms, 250 * ms, true},
		{20 * ms, 250 * ms, true}, // between the bounds it stays
		{2 * ms, 250 * ms, true},  // a pause
		{2 * ms, 250 * ms, true},
		{2 * ms, 250 * ms, true},
		{13 * ms, 250 * ms, true}, // over
		{2 * ms, 250 * ms, true},
		{2 * ms, 250 * ms, true},
		{2 * ms, 250 * ms, true},
		{2 * ms, 250 * ms, false},
		{20 * ms, 250 * ms, false},
		{900 * ms, 3 * time.Second, true}, // a late look
		{0, time.Second, true},
		{0, 0, true}, // no time has passed: busy, rather than a division by zero
	} {
		was := l.busy
		if changed := l.look(step.used, step.elapsed); l.busy != step.busy || changed != (l.busy != was) {
			t.Fatalf("step %d: %v of %v: busy %v, changed %v; want busy %v", i, step.used, step.elapsed, l.busy, changed, step.busy)
		}
	}
}

// Every thread changes, and back again; their niceness, and a thread with another
// policy, stay.
func TestSchedule(t *testing.T) {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		t.Skipf("tests run with policy %v here (%v)", attr, err)
	}
	t.Cleanup(func() { _ = schedule(unix.SCHED_NORMAL) })
	hold(t, unix.SCHED_IDLE, 0)
	hold(t, unix.SCHED_NORMAL, attr.Nice+3)
	for range 4 {
		hold(t, unix.SCHED_NORMAL, attr.Nice)
	}
	before := threads(t)
	for _, policy := range []uint32{unix.SCHED_BATCH, unix.SCHED_NORMAL} {
		if err := schedule(policy); err != nil {
			t.Fatal(err)
		}
		for tid, got := range threads(t) {
			want := unix.SchedAttr{Policy: policy, Nice: got.Nice}
			if was, ok := before[tid]; ok {
				want.Nice = was.Nice
				if was.Policy == unix.SCHED_IDLE {
					want.Policy = was.Policy
				}
			}
			if got.Policy != want.Policy || got.Nice != want.Nice {
				t.Errorf("thread %d has policy %d, nice %d; want %d, %d", tid, got.Policy, got.Nice, want.Policy, want.Nice)
			}
		}
	}
}

// threads returns what the threads of this process have.
func threads(t *testing.T) map[int]*unix.SchedAttr {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]*unix.SchedAttr{}
	for _, d := range entries {
		tid, err := strconv.Atoi(d.Name())
		if err != nil {
			t.Fatal(err)
		}
		if attr, err := unix.SchedGetAttr(tid, 0); err == nil { // else it has ended
			found[tid] = attr
		}
	}
	return found
}

// hold gives a thread a policy and a niceness, and keeps it until the test ends.
// It ends with its goroutine, which does not unlock it, unless it is the first one of
// the process.
func hold(t *testing.T, policy uint32, nice int32) {
	t.Helper()
	ready, end := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		ready <- unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: nice}, 0)
		<-end
	}()
	t.Cleanup(func() { close(end) })
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	loadLook = 250 * time.Millisecond
	// Shares of one CPU, in percent, from which the process is busy, and below which
	// it is not.
	busyFrom, quietBelow = 10, 5
	// quietLooks in a row end being busy: a pause between two transfers does not.
	quietLooks = 4

	notBatch = "the agent is not scheduled as a batch process while busy: it may carry less"
)

// batchWhileBusy lets the kernel schedule this process as a batch one (SCHED_BATCH of
// sched(7)) as long as it is busy: waking up, its threads then do not interrupt
// whoever runs, so that a pod which sends fills the queue first, and each turn of
// ours carries more (docs/performance.md). A process that is not busy wakes up at once
// like any other, so that single packets wait for nobody. It leaves a process alone
// that was started with any other policy than the usual one (chrt -b, -i, -r).
func batchWhileBusy(ctx context.Context, log *slog.Logger) error {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		log.Warn(notBatch, "err", os.NewSyscallError("sched_getattr", err))
		return nil
	}
	if attr.Policy != unix.SCHED_NORMAL {
		return nil
	}
	defer func() { _ = schedule(unix.SCHED_NORMAL) }() // the next run finds it as it was
	t := time.NewTicker(loadLook)
	defer t.Stop()
	var l cpuLoad
	used, at := cpuTime(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		u, now := cpuTime(), time.Now()
		changed := l.look(u-used, now.Sub(at))
		used, at = u, now
		if !changed {
			continue
		}
		if err := schedule(l.policy()); err != nil {
			log.Warn(notBatch, "err", err)
			return nil
		}
		log.Debug("scheduling policy of all threads", "batch", l.busy)
	}
}

// cpuLoad says whether the process is busy. The zero value is not.
type cpuLoad struct {
	busy  bool
	quiet int // looks in a row below quietBelow
}

// look takes the CPU time used since the last look, and reports whether l changed.
func (l *cpuLoad) look(used, elapsed time.Duration) (changed bool) {
	was := l.busy
	switch {
	case used*100 >= elapsed*busyFrom:
		l.busy, l.quiet = true, 0
	case used*100 >= elapsed*quietBelow:
		l.quiet = 0
	default:
		if l.quiet++; l.quiet >= quietLooks {
			l.busy = false
		}
	}
	return l.busy != was
}

func (l *cpuLoad) policy() uint32 {
	if l.busy {
		return unix.SCHED_BATCH
	}
	return unix.SCHED_NORMAL
}

// cpuTime is what this process has used in user space and in the kernel.
func cpuTime() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// schedule gives every thread the policy. Threads that are made later have that of
// the one that made them, so it looks again until it met none that differed.
func schedule(policy uint32) error {
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		changed := false
		for _, d := range threads {
			tid, err := strconv.Atoi(d.Name())
			if err != nil {
				continue
			}
			did, err := scheduleThread(tid, policy)
			if err != nil {
				return err
			}
			changed = changed || did
		}
		if !changed {
			return nil
		}
	}
}

// scheduleThread changes between the two policies only; niceness stays.
func scheduleThread(tid int, policy uint32) (changed bool, err error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil // it has ended
	}
	if err != nil {
		return false, os.NewSyscallError("sched_getattr", err)
	}
	if attr.Policy == policy || attr.Policy != unix.SCHED_NORMAL && attr.Policy != unix.SCHED_BATCH {
		return false, nil
	}
	attr.Policy = policy
	if err := unix.SchedSetAttr(tid, attr, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return false, os.NewSyscallError("sched_setattr", err)
	}
	return true, nil
}

//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// TestBatchWhileBusy: every thread of an agent that carries a transfer is scheduled as
// one of a batch process, and as any other again afterwards.
func TestBatchWhileBusy(t *testing.T) {
	topo := lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, NoCapture: true})
	serveStreams(t, topo)
	startAgents(t, topo)
	if got, err := policies(topo.Agent("cloud-gw")); err != nil || len(got) != 1 || got[unix.SCHED_NORMAL] == 0 {
		t.Skipf("threads that have done nothing have policies %v here (%v)", got, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		to := netip.AddrPortFrom(topo.Node("cloud-1").Pods[0].IP, streamPort)
		_, _ = topo.Node("edge-a-1").Pods[0].Transfer(ctx, to, 1<<40) // until it is ended
	}()
	carriers := []string{"edge-a-1", "edge-a-gw", "cloud-gw", "cloud-1"}
	for _, n := range carriers {
		waitPolicy(t, topo.Agent(n), unix.SCHED_BATCH)
	}
	cancel()
	<-ended
	for _, n := range carriers {
		waitPolicy(t, topo.Agent(n), unix.SCHED_NORMAL)
	}
}

// waitPolicy waits until all threads of an agent have one policy.
func waitPolicy(t *testing.T, a *lab.Agent, want uint32) {
	t.Helper()
	end, tick := time.After(10*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		got, err := policies(a)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 1 && got[want] > 0 {
			return
		}
		select {
		case <-end:
			t.Fatalf("%s: threads by policy: %v; want policy %d only", a.Host.Name, got, want)
		case <-tick.C:
		}
	}
}

// policies counts the threads of an agent by their policies.
func policies(a *lab.Agent) (map[uint32]int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", a.Process().PID()))
	if err != nil || len(tasks) == 0 {
		return nil, fmt.Errorf("%s has no threads: %w", a.Host.Name, os.ErrProcessDone)
	}
	count := map[uint32]int{}
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			return nil, err
		}
		if attr, err := unix.SchedGetAttr(tid, 0); err == nil { // else it has ended
			count[attr.Policy]++
		}
	}
	return count, nil
}

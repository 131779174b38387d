//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/controller/election"
	"corax/integration/kube/cluster"
	"corax/integration/kube/mesh"
	"corax/integration/lab"
)

const (
	bulkPort   = 7001
	bulkBytes  = 96 << 20
	bulkRate   = 8 << 20  // a second
	strikeAt   = 24 << 20 // bytes that have arrived
	bulkWithin = 90 * time.Second
	watchTime  = 20 * time.Millisecond
	// stalled is for how long nothing arrives when the way is cut; TCP's own pauses
	// are shorter.
	stalled = 500 * time.Millisecond
)

// failover is what is seen while a gateway node dies.
type failover struct {
	*demo
	domain *lab.Domain
	victim string
	from   *lab.Pod
	to     *lab.Pod
	bulk   *lab.Bulk
	beat   *lab.Beat
	start  time.Time
	struck time.Time // zero: not yet
	moved  int64     // bytes that had arrived when last looked
	at     time.Time // when that had changed last
	back   bool      // bytes arrive again
	heir   chan string
}

// failover ends the gateway node of an edge while a pod of another node of the
// edge sends to the other edge.
func (d *demo) failover(t cluster.T) {
	f := &failover{demo: d, domain: d.world.Domains[1], heir: make(chan string, 1)}
	f.victim = d.world.TheActive(t, f.domain.Name)
	i := slices.IndexFunc(f.domain.Nodes, func(n *lab.Node) bool { return n.Name != f.victim })
	f.from, f.to = f.domain.Nodes[i].Pods[0], d.world.Domains[2].Nodes[1].Pods[0]
	fmt.Fprintf(d.out, "\n  The gateway node of %s dies: %d MB at %d MB/s from a pod of %s to one of %s\n\n",
		f.domain.Name, bulkBytes>>20, bulkRate>>20, f.from.Node.Name, f.to.Node.Name)
	ctx, cancel := context.WithTimeoutCause(t.Context(), bulkWithin, fmt.Errorf("the transfer took longer than %v", bulkWithin))
	defer cancel()
	f.send(ctx, t)
	d.sums.transfers++
	d.sums.bytes += bulkBytes
	f.events(t)
	d.kubectl(t, "get", "gateways")
	fmt.Fprintln(d.out)
	d.steps(t, []step{{f.victim + " returns, as a standby", f.heal}, {"ping, from every pod again", d.ping}})
}

// send starts the traffic and watches it to its end.
func (f *failover) send(ctx context.Context, t cluster.T) {
	f.start = time.Now()
	f.say("first packet")
	var err error
	if f.bulk, err = lab.StartBulk(ctx, f.from.Host, f.to.Host, netip.AddrPortFrom(f.to.IP, bulkPort), bulkBytes, bulkRate); err != nil {
		t.Fatalf("%v", err)
	}
	defer func() { _ = f.bulk.Close() }()
	if f.beat, err = f.from.StartBeat(netip.AddrPortFrom(f.to.IP, mesh.Port)); err != nil {
		t.Fatalf("%v", err)
	}
	defer f.beat.Stop()
	done := make(chan error, 1)
	go func() { done <- f.bulk.Wait(ctx) }()
	tick := time.NewTicker(watchTime)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%v", err)
			}
			f.finish(t)
			return
		case name := <-f.heir:
			f.say("%s is the gateway node of %s", name, f.domain.Name)
		case now := <-tick.C:
			f.look(ctx, t, now)
		}
	}
}

// look sees what has arrived, and strikes when it is time.
func (f *failover) look(ctx context.Context, t cluster.T, now time.Time) {
	moved := f.bulk.Moved()
	if moved == f.moved {
		return
	}
	pause := now.Sub(f.at)
	if !f.back && !f.struck.IsZero() && pause > stalled {
		f.back = true
		f.say("bytes arrive again, after %.1f s", pause.Seconds())
	}
	if f.struck.IsZero() && moved >= strikeAt {
		f.strike(ctx, t)
	}
	f.moved, f.at = moved, now
}

// strike takes the gateway node away: its agent, and its network.
func (f *failover) strike(ctx context.Context, t cluster.T) {
	f.say("%.1f MB have arrived; %s, the gateway node, dies: SIGKILL to its agent, no cable",
		float64(f.bulk.Moved())/(1<<20), f.victim)
	f.beat.Reset()
	f.struck = time.Now()
	f.world.Node(f.victim).Unplug("eth0")
	if err := errors.Join(f.world.Lab.Err(), f.world.Agent(f.victim).Kill()); err != nil {
		t.Fatalf("%v", err)
	}
	go f.findHeir(ctx)
}

// findHeir sends the name of the node that is elected instead.
func (f *failover) findHeir(ctx context.Context) {
	tick := time.NewTicker(watchTime)
	defer tick.Stop()
	for {
		names, err := f.world.Active(ctx, f.domain.Name)
		if err == nil && len(names) == 1 && names[0] != f.victim {
			f.heir <- names[0]
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// finish says how it went.
func (f *failover) finish(t cluster.T) {
	f.say("all %d MB arrived, SHA-256 right; TCP was away for %.1f s, datagrams for %.1f s",
		bulkBytes>>20, f.bulk.Pause().Seconds(), f.beat.Result().Longest.Seconds())
	if !f.back {
		t.Fatalf("the transfer never paused: %s did not carry it, or is not dead", f.victim)
	}
}

// events waits until an event names the cause, and shows them.
func (f *failover) events(t cluster.T) {
	about := "involvedObject.kind=Gateway,involvedObject.name=" + f.domain.Name
	cluster.Eventually(t, 15*time.Second, "the event about "+f.victim, func(ctx context.Context) error {
		list, err := f.world.Cluster.Client.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: about})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list.Items, func(e corev1.Event) bool {
			return e.Reason == election.EventLost && strings.Contains(e.Message, "node "+f.victim+" is no active")
		}) {
			return fmt.Errorf("none of %d events says so", len(list.Items))
		}
		return nil
	})
	f.kubectl(t, "get", "events", "--field-selector", about)
}

// heal undoes strike, and waits until the node may be elected again.
func (f *failover) heal(t cluster.T) {
	f.world.Node(f.victim).Plug("eth0")
	if err := errors.Join(f.world.Lab.Err(), f.world.Agent(f.victim).Start()); err != nil {
		t.Fatalf("%v", err)
	}
	f.world.WaitHealthy(t)
	if now := f.world.TheActive(t, f.domain.Name); now == f.victim {
		t.Fatalf("%s is active again although its successor is well", now)
	}
}

// say prints what happens now.
func (f *failover) say(format string, args ...any) {
	fmt.Fprintf(f.out, "  %8.3f s  %s\n", time.Since(f.start).Seconds(), fmt.Sprintf(format, args...))
}

//go:build linux

package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/integration/kube/cluster"
	"corax/integration/kube/mesh"
	"corax/integration/lab"
)

// backWithin is how long traffic may be away when a gateway node fails.
const backWithin = 10 * time.Second

// fault is one way in which a gateway node ceases to carry traffic.
type fault struct {
	name   string
	strike func(*testing.T, *world, string)
	heal   func(*testing.T, *world, string)
	cause  string // part of what the event says
}

func faults() []fault {
	return []fault{
		{
			"agent killed",
			func(t *testing.T, w *world, node string) { must(t, w.Agent(node).Kill()) },
			func(t *testing.T, w *world, node string) { must(t, w.Agent(node).Start()) },
			"agent dead: Lease lapsed",
		},
		{
			"agent frozen",
			func(t *testing.T, w *world, node string) {
				must(t, w.Agent(node).Process().Signal(syscall.SIGSTOP))
			},
			func(t *testing.T, w *world, node string) {
				must(t, w.Agent(node).Process().Signal(syscall.SIGCONT))
			},
			"agent dead: Lease lapsed",
		},
		{
			"network cut",
			func(_ *testing.T, w *world, node string) { w.Node(node).Unplug("eth0") },
			func(_ *testing.T, w *world, node string) { w.Node(node).Plug("eth0") },
			"agent dead: Lease lapsed",
		},
		{
			"node cordoned",
			func(t *testing.T, w *world, node string) { w.Cluster.Cordon(t, node, true) },
			func(t *testing.T, w *world, node string) { w.Cluster.Cordon(t, node, false) },
			"cordoned",
		},
		{
			"agent stopped",
			func(t *testing.T, w *world, node string) { must(t, w.Agent(node).Stop()) },
			func(t *testing.T, w *world, node string) { must(t, w.Agent(node).Start()) },
			"carries no traffic: the agent was stopped",
		},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestFailover fails the gateway node of an edge, and that of the cloud, in every
// way; another node of its domain takes over.
func TestFailover(t *testing.T) {
	w := newWorld(t)
	for _, domain := range []string{"edge-a", "cloud"} {
		for _, f := range faults() {
			if !t.Run(domain+" "+f.name, func(t *testing.T) { w.failover(t, domain, f) }) {
				return // what follows would only wait
			}
		}
	}
}

// failover strikes the active node of a domain while its other nodes have
// traffic with the rest of the world.
func (w *world) failover(t *testing.T, domain string, f fault) {
	victim := w.TheActive(t, domain)
	runs := w.startTraffic(t, domain, victim)
	mark := time.Now()
	f.strike(t, w, victim)
	healed := false
	heal := func() {
		if !healed {
			healed = true
			f.heal(t, w, victim)
		}
	}
	defer heal()
	cluster.Eventually(t, time.Minute, "a successor of "+victim, func(ctx context.Context) error {
		names, err := w.Active(ctx, domain)
		if err == nil && (len(names) != 1 || names[0] == victim) {
			err = fmt.Errorf("active are %v", names)
		}
		return err
	})
	t.Logf("%s gave way to %s after %v", victim, w.TheActive(t, domain), time.Since(mark).Round(100*time.Millisecond))
	for _, r := range runs {
		r.check(t, mark)
	}
	w.lost(t, domain, victim, f.cause)
	heal()
	w.WaitHealthy(t)
}

// lost looks for the event that says that a node was lost, and why.
func (w *world) lost(t *testing.T, domain, node, cause string) {
	t.Helper()
	cluster.Eventually(t, 10*time.Second, "the event about "+node, func(ctx context.Context) error {
		list, err := w.Cluster.Client.EventsV1().Events("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		var notes []string
		for _, e := range list.Items {
			if e.Regarding.Name == domain && e.Reason == "ActiveEndpointLost" {
				notes = append(notes, e.Note)
			}
		}
		if !slices.ContainsFunc(notes, func(s string) bool {
			return strings.Contains(s, "node "+node) && strings.Contains(s, cause)
		}) {
			return fmt.Errorf("no event says that %s was lost: %s, but %q", node, cause, notes)
		}
		return nil
	})
}

// traffic is what runs between two pods: a TCP connection that must survive, and
// datagrams, which show for how long nothing passed.
type traffic struct {
	from, to *lab.Pod
	flow     *lab.Flow
	beat     *lab.Beat
}

// startTraffic starts traffic from a node of a domain that is not the one to be
// struck, to a pod of each other domain, and lets it mesh.Settle.
func (w *world) startTraffic(t *testing.T, domain, victim string) []*traffic {
	t.Helper()
	var from *lab.Node
	far := make(map[string]*lab.Node)
	for _, n := range w.Nodes() {
		switch {
		case domainOf(n) != domain:
			far[domainOf(n)] = n
		case n.Name != victim:
			from = n
		}
	}
	var runs []*traffic
	for _, n := range far {
		r := &traffic{from: from.Pods[0], to: n.Pods[0]}
		r.start(t)
		runs = append(runs, r)
	}
	return runs
}

func (r *traffic) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	at := netip.AddrPortFrom(r.to.IP, mesh.Port)
	var err error
	r.flow, err = r.from.StartFlow(ctx, at)
	must(t, err)
	t.Cleanup(func() { _, _ = r.flow.Stop() })
	r.beat, err = r.from.StartBeat(at)
	must(t, err)
	t.Cleanup(func() { r.beat.Stop() })
	for range 50 { // a second
		must(t, r.flow.WaitMove(ctx))
	}
	must(t, r.beat.WaitBack(ctx))
	r.flow.Reset()
	r.beat.Reset()
}

// check demands that both pass again, that datagrams were not away for too long
// since the fault, and that the connection is still the same.
func (r *traffic) check(t *testing.T, struck time.Time) {
	t.Helper()
	ctx, cancel := context.WithDeadlineCause(t.Context(), struck.Add(time.Minute), errors.New("nothing passes a minute after the fault"))
	defer cancel()
	for range 50 {
		if err := r.flow.WaitMove(ctx); err != nil {
			t.Fatalf("TCP from %s to %s: %v", r.from.Name, r.to.Name, err)
		}
	}
	beat := r.beat.Result()
	flow, err := r.flow.Result()
	if err != nil {
		t.Errorf("TCP from %s to %s did not survive: %v", r.from.Name, r.to.Name, err)
	}
	t.Logf("from %s to %s: datagrams away for %v, TCP for %v", r.from.Name, r.to.Name,
		beat.Longest.Round(time.Millisecond), flow.Longest.Round(time.Millisecond))
	if beat.Longest > backWithin {
		t.Errorf("from %s to %s: nothing passed for %v, more than %v", r.from.Name, r.to.Name, beat.Longest, backWithin)
	}
}

//go:build linux

package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/control/api/v1beta1"
	"corax/integration/kube/cluster"
	"corax/integration/kube/mesh"
	"corax/integration/lab"
)

const (
	// How long the API server is away at least.
	outage     = 2 * time.Minute
	longOutage = 10 * time.Minute
	// settled is when, after its return, all that it caused has been written.
	settled = 45 * time.Second
)

// TestOutage stops the API server. Meanwhile agents are started again, and
// gateway nodes fail; tunnels work all the time. Then it returns, and nothing is
// written that need not be.
func TestOutage(t *testing.T) { surviveOutage(t, outage) }

// TestSoakOutage is TestOutage for ten minutes.
func TestSoakOutage(t *testing.T) {
	if os.Getenv("CORAX_SOAK") == "" {
		t.Skip("make soak runs it")
	}
	surviveOutage(t, longOutage)
}

func surviveOutage(t *testing.T, outage time.Duration) {
	w := newWorld(t)
	before := w.endpoints(t)
	var runs []*traffic
	for _, way := range [][2]string{{"edge-b-1", "edge-c-gw"}, {"edge-c-gw", "cloud-1"}} {
		r := &traffic{from: w.Node(way[0]).Pods[0], to: w.Node(way[1]).Pods[0]}
		r.start(t)
		runs = append(runs, r)
	}
	mark := w.Cluster.Mark(t)
	stopped := time.Now()
	w.Cluster.StopAPI(t)
	ended := time.After(outage)
	for _, n := range w.Nodes() {
		w.says(t, n.Name, "the API server at https://203.0.113.200:6443 is away")
	}

	t.Run("traffic goes on", func(t *testing.T) {
		for _, r := range runs {
			r.check(t, stopped)
		}
	})
	if !t.Run("agents started again", w.restarts) {
		return // what follows would only wait
	}
	for _, domain := range []string{"edge-a", "cloud"} {
		for _, f := range faults() {
			if f.name == "node cordoned" {
				continue // nobody can see it
			}
			if !t.Run(domain+" "+f.name, func(t *testing.T) { w.failoverAlone(t, domain, f) }) {
				return
			}
		}
	}
	<-ended
	w.restartsOf(t, "edge-c-gw") // whose cache is old by now

	last := w.Cluster.Mark(t)
	w.Cluster.StartAPI(t)
	returned := time.Now()
	w.resumeController(t)
	w.recovered(t)
	t.Logf("everything was well %v after the return", time.Since(returned).Round(time.Second))
	quiet := time.After(time.Until(returned.Add(settled)))
	t.Run("nothing stale", func(t *testing.T) {
		// What an agent sees of its NAT may change.
		facts := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".NATType" }, cmp.Ignore())
		if diff := cmp.Diff(before, w.endpoints(t), facts); diff != "" {
			t.Errorf("spec.endpoints changed over the outage (-before +after):\n%s", diff)
		}
	})
	<-quiet
	t.Run("no burst", func(t *testing.T) { w.noBurst(t, mark, last, returned) })
}

// says waits until an agent's status names a problem.
func (w *world) says(t *testing.T, node, problem string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.Agent(node).WaitStatus(ctx, lab.Troubled(problem)); err != nil {
		t.Errorf("%s: %v", node, err)
	}
}

// restarts starts agents again, in order and after a crash, without an API server.
func (w *world) restarts(t *testing.T) {
	for _, node := range []string{"cloud-1", "edge-a-2", "edge-b-gw", "edge-c-gw"} {
		w.restartsOf(t, node)
	}
	must(t, w.Agent("edge-b-1").Kill())
	must(t, w.Agent("edge-b-1").Start())
	w.says(t, "edge-b-1", "what is in force was kept on disk at")
	w.reach(t, "edge-b-1")
}

func (w *world) restartsOf(t *testing.T, node string) {
	t.Helper()
	must(t, w.Agent(node).Restart())
	w.says(t, node, "what is in force was kept on disk at")
	w.reach(t, node)
}

// reach waits until a pod of a node reaches one of every other domain, and back.
func (w *world) reach(t *testing.T, node string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("not within a minute"))
	defer cancel()
	from := w.Node(node)
	for _, to := range w.Nodes() {
		if domainOf(to) == domainOf(from) {
			continue
		}
		for _, way := range [][2]*lab.Pod{{from.Pods[0], to.Pods[0]}, {to.Pods[0], from.Pods[0]}} {
			if _, err := way[0].PingUntil(ctx, way[1].IP, lab.PingOptions{}); err != nil {
				t.Fatalf("from %s to %s: %v", way[0].Name, way[1].Name, err)
			}
		}
	}
}

// carriers are the nodes of a domain whose agents say that they are gateway nodes.
// An agent that does not answer says nothing.
func (w *world) carriers(ctx context.Context, domain string) []string {
	var names []string
	for _, n := range w.Nodes() {
		if domainOf(n) != domain {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, time.Second)
		s, err := w.Agent(n.Name).Status(ask)
		cancel()
		if err == nil && s.Role == "gateway" {
			names = append(names, n.Name)
		}
	}
	return names
}

// failoverAlone is failover while nobody elects.
func (w *world) failoverAlone(t *testing.T, domain string, f fault) {
	names := w.carriers(t.Context(), domain)
	if len(names) != 1 {
		t.Fatalf("gateway nodes are %v", names)
	}
	victim := names[0]
	runs := w.startTraffic(t, domain, victim)
	struck := time.Now()
	f.strike(t, w, victim)
	healed := false
	heal := func() {
		if !healed {
			healed = true
			f.heal(t, w, victim)
		}
	}
	defer heal()
	successor := ""
	cluster.Eventually(t, time.Minute, "a successor of "+victim, func(ctx context.Context) error {
		names := slices.DeleteFunc(w.carriers(ctx, domain), func(s string) bool { return s == victim })
		if len(names) != 1 {
			return fmt.Errorf("gateway nodes are %v", names)
		}
		successor = names[0]
		return nil
	})
	t.Logf("%s gave way to %s after %v", victim, successor, time.Since(struck).Round(100*time.Millisecond))
	for _, r := range runs {
		r.check(t, struck)
	}
	w.says(t, successor, successor+" carries its subnets instead of")
	heal()
	cluster.Eventually(t, mesh.Settle, "one gateway node of "+domain, func(ctx context.Context) error {
		if names := w.carriers(ctx, domain); !slices.Equal(names, []string{successor}) {
			return fmt.Errorf("gateway nodes are %v", names)
		}
		if s, err := w.Agent(victim).Status(ctx); err != nil || s.Role != "standby" {
			return fmt.Errorf("%s is no standby: %+v, %w", victim, s, err)
		}
		return nil
	})
	w.reach(t, victim)
}

// untroubled allows for what this cluster lacks: who signs the certificates of fronts.
func untroubled(s *lab.Status) error {
	problems := slices.DeleteFunc(slices.Clone(s.Problems), func(p string) bool { return strings.Contains(p, "nobody signs it") })
	return lab.Untroubled(&lab.Status{Problems: problems})
}

// recovered waits until all agents have heard from the API server, and those whom
// it says to be active carry the traffic.
func (w *world) recovered(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), mesh.Settle)
	defer cancel()
	for _, n := range w.Nodes() {
		if err := w.Agent(n.Name).WaitStatus(ctx, untroubled); err != nil {
			t.Errorf("%s: %v", n.Name, err)
		}
	}
	w.waitWhole(t)
	for _, domain := range w.names() {
		cluster.Eventually(t, mesh.Settle, "one mind about "+domain, func(ctx context.Context) error {
			elected, err := w.Active(ctx, domain)
			if carry := w.carriers(ctx, domain); err == nil && !slices.Equal(elected, carry) {
				err = fmt.Errorf("elected are %v, %v say that they are", elected, carry)
			}
			return err
		})
	}
}

// resumeController starts the controller again as the kubelet would: one that
// loses the leader's Lease ends.
func (w *world) resumeController(t *testing.T) {
	t.Helper()
	select {
	case <-w.Controller.Done():
		w.StartController(t, "controller")
	default:
	}
}

// endpoints returns spec.endpoints of all Gateways.
func (w *world) endpoints(t *testing.T) map[string][]v1beta1.Endpoint {
	t.Helper()
	all := make(map[string][]v1beta1.Endpoint)
	for _, domain := range w.names() {
		g, err := w.Gateway(t.Context(), domain)
		must(t, err)
		all[domain] = g.Spec.Endpoints
	}
	return all
}

// noBurst looks at what was written since the return: agents wrote no Gateway and
// renewed Leases at their pace, and the controller wrote what had changed.
func (w *world) noBurst(t *testing.T, before, after cluster.Mark, returned time.Time) {
	for _, write := range w.Cluster.Writes(t, before, func(w cluster.Write) bool {
		return w.Time.Before(returned) && strings.HasPrefix(w.Agent, "corax") && w.Resource == "gateways"
	}) {
		t.Errorf("written while it was going away: %s", write)
	}
	leases, status, agents := make(map[string]int), make(map[string]int), make(map[string]int)
	const window = 10 * time.Second
	for _, write := range w.Cluster.Writes(t, after, nil) {
		switch {
		case write.Resource == "gateways" && strings.HasPrefix(write.Agent, "corax-agent"):
			// What it sees of its NAT may have changed; nothing else has.
			agents[write.User+" "+write.Name]++
			if !natTypeAlone(t, write.Body) {
				t.Errorf("an agent wrote although nothing of its own had changed: %s", write)
			}
		case write.Resource == "gateways" && write.Verb == "patch" || write.Resource == "gateways/status":
			status[write.Name]++
		case write.Resource == "leases" && write.Namespace == "corax-leases" && write.Time.Before(returned.Add(window)):
			leases[write.Name]++
		}
	}
	// One every two seconds, and one for each of three changes of role or word.
	for node, n := range leases {
		if most := int(window/(2*time.Second)) + 1 + 3; n > most {
			t.Errorf("the Lease of %s was written %d times within %v, more than %d", node, n, window, most)
		}
	}
	for who, n := range agents {
		if n > len(w.Agents()) {
			t.Errorf("%s: written %d times by %d agents", who, n, len(w.Agents()))
		}
	}
	for name, n := range status {
		if n > 10 {
			t.Errorf("Gateway %s was written %d times", name, n)
		}
	}
	t.Logf("writes of Leases within %v of the return: %v; of Gateways: %v, by agents: %v", window, leases, status, agents)
}

// natTypeAlone reports whether a JSON patch changes nothing but natType.
func natTypeAlone(t *testing.T, patch []byte) bool {
	t.Helper()
	var ops []struct{ Op, Path string }
	must(t, json.Unmarshal(patch, &ops))
	for _, o := range ops {
		if o.Op != "test" && !strings.HasSuffix(o.Path, "/natType") {
			return false
		}
	}
	return true
}

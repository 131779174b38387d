//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	// rotateWithin is how long a change of a key may take that every object names:
	// the agent gives its peers half a minute.
	rotateWithin = 60 * time.Second
	// rotatePause is how long a transfer may pause while the key changes.
	rotatePause = 10 * time.Second
)

// TestKeyRotation changes the keys of the hub, of a gateway node behind a NAT and
// of a standby under load, with the objects in a directory: next key listed, used,
// made the key, old one gone. No transfer breaks.
func TestKeyRotation(t *testing.T) {
	topo, streams := failoverLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	nodes := []string{"cloud-gw", "edge-a-gw", "edge-a-1"}
	old, next := map[string]string{}, map[string]string{}
	for _, n := range nodes {
		a := topo.Agent(n)
		old[n] = statusOf(t, a).PublicKey
		var err error
		if next[n], err = a.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
	}
	keys := map[string]string{}
	for _, n := range topo.Nodes() {
		keys[n.Name] = statusOf(t, topo.Agent(n.Name)).PublicKey
	}
	// write writes every object; change sees each endpoint.
	write := func(change func(e *lab.Endpoint)) {
		t.Helper()
		for _, d := range topo.Domains {
			g := topo.Object(d, keys)
			standby := g.Endpoints[0]
			standby.Node, standby.PublicKey = d.Nodes[1].Name, keys[d.Nodes[1].Name]
			if d.Hub {
				standby.PublicIP = d.Nodes[1].IP
			}
			g.Endpoints = append(g.Endpoints, standby)
			for i := range g.Endpoints {
				change(&g.Endpoints[i])
			}
			if err := g.Write(topo.Gateways); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Until the object names it the next key waits, and status says so.
	if err := topo.Agent("cloud-gw").WaitStatus(ctx, lab.Troubled("the next key of this node, "+next["cloud-gw"]+", is not in its Gateway object yet")); err != nil {
		t.Error(err)
	}
	flowing(t, streams)

	began := time.Now()
	write(func(e *lab.Endpoint) {
		if k := next[e.Node]; k != "" {
			e.Config = map[string]string{"corax.io/next-public-key": k}
		}
	})
	for _, n := range nodes {
		within, stop := context.WithDeadline(ctx, began.Add(rotateWithin))
		err := topo.Agent(n).WaitStatus(within, func(s *lab.Status) error {
			if s.PublicKey != next[n] {
				return fmt.Errorf("%s uses %s, not %s", n, s.PublicKey, next[n])
			}
			return nil
		})
		stop()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s has its next key after %v", n, time.Since(began).Round(time.Second))
	}
	moving(t, streams)
	report := func(what string) {
		for _, s := range streams {
			if r, err := s.Result(); err != nil || r.Longest > rotatePause {
				t.Errorf("%s: stream from %s paused for %v, error %v", what, s.name, r.Longest, err)
			} else {
				t.Logf("%s: stream from %s paused for %v", what, s.name, r.Longest.Round(time.Millisecond))
			}
		}
	}
	report("new keys")
	for _, d := range topo.Domains {
		awaitRole(t, topo, d.Nodes[0].Name, "gateway", 5*time.Second)
		awaitRole(t, topo, d.Nodes[1].Name, "standby", 5*time.Second)
	}
	if err := topo.Agent("cloud-gw").WaitStatus(ctx, lab.Troubled("node cloud-gw uses this key now: make it the publicKey")); err != nil {
		t.Error(err)
	}

	// The old keys go.
	flowing(t, streams)
	for n, k := range next {
		keys[n] = k
	}
	write(func(*lab.Endpoint) {})
	for _, a := range topo.Agents() {
		if err := a.WaitStatus(ctx, lab.Untroubled); err != nil {
			t.Error(err)
		}
	}
	for _, n := range topo.Nodes() {
		s := statusOf(t, topo.Agent(n.Name))
		for _, p := range s.Peers {
			if p.PublicKey != "" && p.PublicKey == old[p.Node] {
				t.Errorf("%s still has the old key of %s", n.Name, p.Node)
			}
		}
	}
	moving(t, streams)
	for _, s := range streams {
		if r, err := s.Result(); err != nil || r.Longest > streamPause+time.Second {
			t.Errorf("without the old keys: stream from %s paused for %v, error %v", s.name, r.Longest, err)
		}
	}
}

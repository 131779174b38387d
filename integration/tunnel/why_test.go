//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

// why makes a function for await: the path to a peer is of a kind, and says why
// it is not better.
func why(node, kind, text string) func(*lab.Status) error {
	return func(s *lab.Status) error {
		p := s.Peer(node)
		if p == nil || p.Path.Kind != kind || !strings.Contains(p.Path.Why, text) {
			return fmt.Errorf("peer %s: %+v; want %s, %q", node, p, kind, text)
		}
		return nil
	}
}

// TestWhy brings about every kind of path that there is without NAT traversal,
// and wants a reason that an operator can do something with.
func TestWhy(t *testing.T) {
	f := newFaults(t, lab.Options{Edges: 2})
	hub, a, b := f.hub(), f.edge().Agents[0], f.Domains[2].Agents[0]

	f.await(t, a, 10*time.Second, why("cloud-gw", "direct", "direct is the best there is"))
	f.await(t, f.edge().Agents[1], 10*time.Second, why("edge-a-gw", "vxlan", "the home of this node"))

	// Edges look for a way to each other when there is something to carry.
	f.await(t, a, 10*time.Second, why("edge-b-gw", "idle", "no traffic; a path is looked for with the first packet"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := f.edge().Nodes[0].Pods[0].PingBetween(ctx, f.Domains[2].Nodes[1].Pods[0], false); err != nil {
		t.Error(err)
	}
	f.await(t, a, 20*time.Second, why("edge-b-gw", "direct", "direct is the best there is"))

	// The hub behind a firewall that drops everything, from the start of the edge.
	f.Domains[2].Router.Unplug("wan")
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	f.await(t, b, 15*time.Second, why("cloud-gw", "none", "203.0.113.130:4500 has not answered a handshake: is UDP open to it, does it list this node's key?"))
	f.Domains[2].Router.Plug("wan")
	f.await(t, b, 15*time.Second, why("cloud-gw", "direct", "best"))
	f.await(t, hub, 5*time.Second, lab.Reached("edge-a-gw", "edge-b-gw"))
	f.undisturbed()
}

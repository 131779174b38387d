//go:build linux

package tunnel_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"corax/integration/lab"
)

// TestKilledWithBrokenFile kills agents while the file of a domain is broken, and
// starts them again: what was in force stays so, the mistake is named, and
// nothing leaves in the clear.
func TestKilledWithBrokenFile(t *testing.T) {
	topo, streams, control := restartLab(t)
	const name = "edge-a.yaml"
	good, err := os.ReadFile(filepath.Join(topo.Gateways, name))
	if err != nil {
		t.Fatal(err)
	}
	for _, victims := range [][]string{{"cloud-gw"}, {"edge-a-gw"}, {"cloud-1", "edge-a-1"}} {
		carried, others := split(streams, victims)
		flowing(t, append(streams, control))
		leaks := watchLeaks(t, topo)
		put(t, topo.Gateways, name, good[:bytes.Index(good, []byte("subnets:"))+4])
		for _, a := range topo.Agents() {
			await(t, a, lab.Troubled(name+":"))
		}
		killAll(t, topo, victims)
		for _, v := range victims {
			knock(t, topo, v)
		}
		began := time.Now()
		for _, v := range victims {
			if err := topo.Agent(v).Start(); err != nil {
				t.Fatal(err)
			}
		}
		moveAgain(t, carried, began, moveWithin)
		steady(t, control, others)
		leaks.none(t)
		for _, v := range victims {
			await(t, topo.Agent(v), lab.Troubled(name+":"))
		}
		put(t, topo.Gateways, name, good)
		for _, a := range topo.Agents() {
			await(t, a, lab.Untroubled)
		}
	}
}

// TestUnusableNodes lists nodes that cannot be on the segment: the agents that
// would speak with them say so, and the others do not mind.
func TestUnusableNodes(t *testing.T) {
	f := newFaults(t, lab.Options{})
	const name = "edge-a.yaml"
	good, err := os.ReadFile(filepath.Join(f.Gateways, name))
	if err != nil {
		t.Fatal(err)
	}
	put(t, f.Gateways, name, append(bytes.Clone(good), `        - nodeName: edge-a-8
          privateIP: 10.168.1.11
          subnets: [10.244.18.0/24]
        - nodeName: edge-a-9
          privateIP: fd00::9
          subnets: [10.244.19.0/24]
`...))
	f.await(t, f.edge().Agents[0], 10*time.Second, lab.Troubled(
		`node "edge-a-1": 192.168.1.11 gives the segment address 240.168.1.11, which is another node's too`,
		`node "edge-a-9": address fd00::9 is not of the underlay's family`))
	f.await(t, f.hub(), 10*time.Second, lab.Untroubled)
	put(t, f.Gateways, name, good)
	f.await(t, f.edge().Agents[0], 10*time.Second, lab.Untroubled)
	f.undisturbed()
}

func await(t *testing.T, a *lab.Agent, ok func(*lab.Status) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := a.WaitStatus(ctx, ok); err != nil {
		t.Error(err)
	}
}

//go:build linux

package mesh_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"corax/integration/kube/cluster"
	"corax/integration/kube/mesh"
	"corax/integration/lab"
)

// world is a cluster of a cloud and three edges: a real control plane on a host
// of the cloud's LAN, a real controller, and real agents.
//
//	control   API server, etcd, corax controller        (cloud LAN)
//	cloud     cloud-gw, cloud-1
//	edge-a    edge-a-gw, edge-a-1, edge-a-2              (behind a NAT)
//	edge-b    edge-b-gw, edge-b-1                        (behind a NAT)
//	edge-c    edge-c-gw                                  (behind a NAT)
type world struct{ *mesh.World }

// newWorld builds it and waits until every pod reaches every domain.
func newWorld(t *testing.T) *world {
	t.Helper()
	cluster.Tools(t) // says so before a lab is built
	w := &world{mesh.New(lab.ForTest(t), mesh.Options{Nodes: []int{2, 3, 2, 1}})}
	w.StartControlPlane(t)
	t.Cleanup(func() { w.tell(t) }) // while it still runs
	w.Deploy(t)
	w.AddNodes(t)
	w.StartAgents(t)
	w.StartController(t, "controller")
	w.waitWhole(t)
	return w
}

// waitWhole waits until every Gateway is ready with all its candidates eligible,
// and one pod of every node reaches one of every other domain.
func (w *world) waitWhole(t *testing.T) {
	t.Helper()
	w.WaitHealthy(t)
	w.WaitReach(t)
}

// names are those of the domains.
func (w *world) names() []string {
	var names []string
	for _, d := range w.Domains {
		names = append(names, d.Name)
	}
	return names
}

// tell logs, of a failed test, what the cluster and each agent say.
func (w *world) tell(t *testing.T) {
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, _ := w.Cluster.Kubectl(t, nil, "get", "gateways,leases", "-A", "-o", "wide", "--request-timeout=5s")
	t.Logf("kubectl get:\n%s", out)
	for _, a := range w.Agents() {
		out, _ := a.Command(ctx, "status", "-o", "wide") // exit code 1: a peer is away
		t.Logf("corax status of %s:\n%s", a.Host.Name, out)
	}
}

// domainOf is the domain of a node by its name.
func domainOf(n *lab.Node) string { return n.Name[:strings.LastIndexByte(n.Name, '-')] }

//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"corax/integration/lab"
)

// takeOverWithin is how soon after its gateway node died a domain's traffic must
// flow again.
const takeOverWithin = 10 * time.Second

// failoverLab is a cloud and two edges, each with a gateway node, a standby and a
// plain node, whose objects come from a directory: nobody elects.
func failoverLab(t *testing.T) (*lab.Topology, []*stream) {
	t.Helper()
	topo := lab.Standard(lab.ForTest(t), lab.Options{Nodes: 3, NoCapture: true})
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	keys, err := topo.Prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range topo.Domains {
		g := topo.Object(d, keys)
		standby := g.Endpoints[0]
		standby.Node = d.Nodes[1].Name
		standby.PublicKey = keys[standby.Node]
		if d.Hub {
			standby.PublicIP = d.Nodes[1].IP
		}
		g.Endpoints = append(g.Endpoints, standby)
		if err := g.Write(topo.Gateways); err != nil {
			t.Fatal(err)
		}
	}
	serveStreams(t, topo)
	for _, a := range topo.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	var streams []*stream
	for _, way := range [][2]string{
		{"edge-a-2", "cloud-2"}, {"cloud-2", "edge-a-2"}, {"edge-a-2", "edge-b-2"}, {"edge-b-2", "edge-a-2"}, {"edge-b-2", "cloud-2"},
	} {
		if _, err := topo.Node(way[0]).Pods[0].PingUntil(ctx, topo.Node(way[1]).Pods[0].IP, lab.PingOptions{}); err != nil {
			t.Fatalf("%v: %v", way, err)
		}
		streams = append(streams, startStream(t, topo, way[0], way[1], false))
	}
	for _, d := range topo.Domains {
		awaitRole(t, topo, d.Nodes[0].Name, "gateway", 30*time.Second)
		awaitRole(t, topo, d.Nodes[1].Name, "standby", 30*time.Second)
	}
	return topo, streams
}

func awaitRole(t *testing.T, topo *lab.Topology, node, role string, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := topo.Agent(node).WaitStatus(ctx, hasRole(role)); err != nil {
		t.Errorf("%s: %v", node, err)
	}
}

// A fault takes a node away, and back brings it again.
type nodeFault struct {
	name   string
	strike func(*lab.Topology, string) error
	back   func(*lab.Topology, string) error
}

func nodeFaults() []nodeFault {
	signal := func(s syscall.Signal) func(*lab.Topology, string) error {
		return func(topo *lab.Topology, node string) error { return topo.Agent(node).Process().Signal(s) }
	}
	cut := func(f func(*lab.Host, string)) func(*lab.Topology, string) error {
		return func(topo *lab.Topology, node string) error {
			f(topo.Node(node).Host, "eth0")
			return nil
		}
	}
	return []nodeFault{
		{
			"killed",
			func(topo *lab.Topology, node string) error { return topo.Agent(node).Kill() },
			func(topo *lab.Topology, node string) error { return topo.Agent(node).Start() },
		},
		{"frozen", signal(syscall.SIGSTOP), signal(syscall.SIGCONT)},
		{"cut off", cut((*lab.Host).Unplug), cut((*lab.Host).Plug)},
	}
}

// TestFailoverWithoutAPI takes the gateway node of an edge and of the hub's domain
// away, one after the other and in three ways, while nobody elects others. The
// standby takes over, nodes and peers follow; when the node is back it is the
// standby, and the next that takes over.
func TestFailoverWithoutAPI(t *testing.T) {
	topo, streams := failoverLab(t)
	epoch := map[string]int{}
	for _, domain := range []string{"edge-a", "cloud"} {
		active, standby := domain+"-gw", domain+"-1"
		for _, f := range nodeFaults() {
			ok := t.Run(domain+" "+f.name, func(t *testing.T) {
				flowing(t, streams)
				began := time.Now()
				if err := f.strike(topo, active); err != nil {
					t.Fatal(err)
				}
				// Blocks that are under way count as moves.
				awaitRole(t, topo, standby, "gateway", takeOverWithin)
				moveAgain(t, streams, began, takeOverWithin)
				epoch[domain]++
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				why := fmt.Sprintf("gateway/%s: %s carries its subnets", domain, standby)
				if err := topo.Agent(standby).WaitStatus(ctx, lab.Troubled(why, active+" of gateway "+domain+" did not answer", fmt.Sprintf("epoch %d", epoch[domain]))); err != nil {
					t.Error(err)
				}
				if err := topo.Agent(domain+"-2").WaitStatus(ctx, lab.Reached(standby)); err != nil {
					t.Error(err)
				}
				if err := f.back(topo, active); err != nil {
					t.Fatal(err)
				}
				awaitRole(t, topo, active, "standby", takeOverWithin)
				awaitRole(t, topo, standby, "gateway", time.Second)
				moving(t, streams)
				for _, s := range streams {
					if r, err := s.Result(); err != nil || r.Longest > takeOverWithin {
						t.Errorf("stream from %s stood still for %v, error %v", s.name, r.Longest, err)
					} else {
						t.Logf("stream from %s stood still for %v", s.name, r.Longest.Round(time.Millisecond))
					}
				}
			})
			if !ok {
				return
			}
			active, standby = standby, active
		}
	}
	for _, n := range topo.Nodes() {
		s := statusOf(t, topo.Agent(n.Name))
		carries := slices.Contains([]string{"edge-a-1", "cloud-1", "edge-b-gw"}, n.Name)
		if (s.Role == "gateway") != carries || strings.HasSuffix(n.Name, "-2") && s.Role != "node" {
			t.Errorf("%s is %s in the end", n.Name, s.Role)
		}
	}
}

func statusOf(t *testing.T, a *lab.Agent) *lab.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	s, err := a.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"corax/integration/kube/cluster"
	"corax/integration/kube/mesh"
	"corax/integration/lab"
)

// start are the steps from nothing to a mesh that carries traffic.
func (d *demo) start(l *lab.Lab) []step {
	return []step{
		{"build the networks: namespaces, NATs, pods", func(t cluster.T) { d.build(t, l) }},
		{"start etcd and kube-apiserver", func(t cluster.T) { d.world.StartControlPlane(t) }},
		{"apply the CRD, accounts, roles and policies", func(t cluster.T) { d.world.Deploy(t) }},
		{"create 2 NodePools and 8 Nodes", func(t cluster.T) { d.world.AddNodes(t) }},
		{"start `corax controller`: it makes 3 Gateways", d.control},
		{"start an agent on each node: all publish keys", d.agents},
		{"ping from every pod to those of other domains", d.ping},
		{"TCP, 10 MB each way with SHA-256", d.transfer},
	}
}

// steps runs them and prints how long each took.
func (d *demo) steps(t cluster.T, steps []step) {
	for _, s := range steps {
		fmt.Fprintf(d.out, "  %-48s", s.text)
		start, ok := time.Now(), false
		func() {
			defer func() {
				if !ok { // Fatalf
					fmt.Fprintln(d.out, "failed")
				}
			}()
			s.run(t)
			ok = true
		}()
		fmt.Fprintf(d.out, "ok %7s\n", time.Since(start).Round(10*time.Millisecond))
	}
}

func (d *demo) build(t cluster.T, l *lab.Lab) {
	d.world = mesh.New(l, mesh.Options{
		Nodes: []int{3, 3, 2}, NodePools: true, NAT: lab.NAT{Mapping: lab.MapCone}, ControlNode: true,
		Control: cluster.Options{Kubelets: true, Controllers: []string{cluster.SigningController}},
	})
	if err := l.Err(); err != nil {
		t.Fatalf("%v", err)
	}
}

// control starts the controller and waits until it has put every node into a
// domain.
func (d *demo) control(t cluster.T) {
	d.world.StartController(t, "controller")
	d.world.FollowServices(t, d.world.ControlNode())
	for _, domain := range d.world.Domains {
		cluster.Eventually(t, mesh.Settle, "gateway "+domain.Name, func(ctx context.Context) error {
			d.alive(t)
			g, err := d.world.Gateway(ctx, domain.Name)
			if err == nil && (len(g.Status.Nodes) != len(domain.Nodes) || len(g.Status.ActiveEndpoints) == 0) {
				err = fmt.Errorf("%d nodes, active are %v", len(g.Status.Nodes), g.Status.ActiveEndpoints)
			}
			return err
		})
	}
}

// alive fails when the controller has ended: nothing would come of waiting.
func (d *demo) alive(t cluster.T) {
	select {
	case <-d.world.Controller.Done():
		t.Fatalf("corax controller ended: %v: %s", d.world.Controller.Err(), lastLine(d.world.Controller.Log))
	default:
	}
}

// lastLine is the last line of a file.
func lastLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

func (d *demo) agents(t cluster.T) {
	d.world.StartAgents(t)
	d.world.WaitHealthy(t)
	d.ready(t)
}

// ready waits until every node is: a standby's Lease comes later than its key, and it
// carries nothing before a peer answered it.
func (d *demo) ready(t cluster.T) {
	for _, domain := range d.world.Domains {
		want := fmt.Sprintf("%d/%d", len(domain.Nodes), len(domain.Nodes))
		cluster.Eventually(t, mesh.Settle, "readiness of "+domain.Name, func(ctx context.Context) error {
			d.alive(t)
			g, err := d.world.Gateway(ctx, domain.Name)
			if err == nil && (g.Status.Summary == nil || g.Status.Summary.Ready != want) {
				err = fmt.Errorf("%+v, want %s ready", g.Status.Summary, want)
			}
			return err
		})
	}
}

// pairs calls f with every two pods of different domains, in both orders.
func (d *demo) pairs(f func(from, to *lab.Pod)) {
	for _, a := range d.world.Domains {
		for _, b := range d.world.Domains {
			if a == b {
				continue
			}
			for _, from := range a.Nodes {
				for _, to := range b.Nodes {
					f(from.Pods[0], to.Pods[0])
				}
			}
		}
	}
}

func (d *demo) ping(t cluster.T) {
	d.pairs(func(from, to *lab.Pod) {
		ctx, cancel := context.WithTimeout(t.Context(), mesh.Settle)
		defer cancel()
		if _, err := from.PingUntil(ctx, to.IP, lab.PingOptions{}); err != nil {
			t.Fatalf("%v", err)
		}
		d.sums.pings++
	})
}

// transfer sends between one pod of each domain and one of each other.
func (d *demo) transfer(t cluster.T) {
	d.pairs(func(from, to *lab.Pod) {
		if !d.last(from) || !d.last(to) {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		at := netip.AddrPortFrom(to.IP, mesh.Port)
		sent, err := from.Transfer(ctx, at, transferBytes)
		if err != nil {
			t.Fatalf("%v", err)
		}
		seen, err := from.WhoAmI(ctx, "tcp", at)
		if err != nil || seen != from.IP {
			t.Fatalf("%s sees %s as %s, %v: its address was hidden", to.Name, from.Name, seen, err)
		}
		d.sums.transfers++
		d.sums.bytes += 2 * sent.Bytes
	})
}

// last reports whether a pod is on the last node of its domain.
func (d *demo) last(p *lab.Pod) bool {
	return slices.ContainsFunc(d.world.Domains, func(domain *lab.Domain) bool {
		return domain.Nodes[len(domain.Nodes)-1] == p.Node
	})
}

// kubectl runs it and prints what it says.
func (d *demo) kubectl(t cluster.T, args ...string) {
	out, err := d.world.Cluster.Kubectl(t, nil, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	fmt.Fprintf(d.out, "\n$ kubectl %s\n%s", strings.Join(args, " "), out)
}

// status prints what the agent of a node says.
func (d *demo) status(t cluster.T, node string) {
	out, err := d.world.Agent(node).Command(t.Context(), "status", "-o", "table")
	if err != nil {
		t.Fatalf("corax status on %s: %v", node, err)
	}
	fmt.Fprintf(d.out, "\n$ corax status        (on %s)\n%s", node, out)
}

//go:build linux

package main

import (
	"context"
	"fmt"
	"io"

	"corax/integration/kube/cluster"
	"corax/integration/kube/mesh"
	"corax/integration/lab"
)

const picture = `
  cloud  203.0.113.128/25           edge-a  192.168.1.0/24     edge-b  192.168.1.0/24
  ┌─────────────────────────┐       ┌─────────────────────┐    ┌─────────────────────┐
  │ cloud-2: etcd,          │       │ edge-a-gw  pod      │    │ edge-b-gw  pod      │
  │   kube-apiserver,       │       │ edge-a-1   pod      │    │ edge-b-1   pod      │
  │   corax controller, pod │       │ edge-a-2   pod      │    │                     │
  │ cloud-gw, cloud-1  pods │       │                     │    │                     │
  └────────────┬────────────┘       └──────────┬──────────┘    └──────────┬──────────┘
            internet ════════════ WAN ════════NAT════════════════════════NAT

  Every node has a Corax agent, which knows of the others by the API server alone.
  Nobody labels a gateway node: the controller makes a Gateway of each NodePool and
  of the cloud, and elects who carries its traffic.
`

const transferBytes = 10 << 20

// demo is one run: what it sent is counted in sums.
type demo struct {
	out   io.Writer
	world *mesh.World
	sums  sums
}

type sums struct {
	pings, transfers int
	bytes            int64
}

// step is something that is done, and timed.
type step struct {
	text string
	run  func(cluster.T)
}

// show is the whole demo. Everything that it starts has ended when it returns, but
// for the lab, which is the caller's.
func show(ctx context.Context, l *lab.Lab, out io.Writer) error {
	d := &demo{out: out}
	err := cluster.Run(ctx, l.Dir(), func(t cluster.T) { d.play(t, l) })
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

func (d *demo) play(t cluster.T, l *lab.Lab) {
	fmt.Fprintln(d.out, "Corax on Kubernetes: nodes and NodePools become a mesh, and a gateway node dies")
	fmt.Fprint(d.out, picture, "\n")
	d.steps(t, d.start(l))
	d.kubectl(t, "get", "nodes", "-L", "apps.openyurt.io/nodepool,raven.openyurt.io/gateway")
	d.ready(t)
	d.kubectl(t, "get", "gateways")
	d.status(t, d.world.TheActive(t, "cloud"))
	d.failover(t)
	d.summary()
	d.proxy(t)
}

// summary prints what was sent.
func (d *demo) summary() {
	fmt.Fprintf(d.out, "\nSent between domains: %d pings, %d transfers with %d MB in all, every SHA-256 right,\n"+
		"one of them over the death of a gateway node.\n", d.sums.pings, d.sums.transfers, d.sums.bytes>>20)
}

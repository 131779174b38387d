//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"

	"corax/integration/lab"
)

// rootless says which agents have no privilege and no TUN.
type rootless struct {
	edges bool
	all   bool
	why   string // what the demo says of it
}

// chooseRootless reads the flag; noTUN is why there is no TUN, nil when there is one.
func chooseRootless(datapath string, noTUN error) (rootless, error) {
	switch {
	case datapath != "auto" && datapath != "tun" && datapath != "netstack":
		return rootless{}, fmt.Errorf("-datapath %q is none of auto, tun and netstack", datapath)
	case datapath == "tun":
		return rootless{}, noTUN
	case noTUN != nil:
		return rootless{edges: true, all: true, why: "There is no TUN here, so that no agent has one, and none has a privilege:\n  " + noTUN.Error()}, nil
	case datapath == "netstack":
		return rootless{edges: true, all: false, why: "The agents of the edges have no TUN and no privilege: another user, no capability,\n  a container's seccomp filter."}, nil
	default:
		return rootless{}, nil
	}
}

// has reports whether a node's agent is rootless.
func (r rootless) has(n *lab.Node, d *lab.Domain) bool { return r.all || r.edges && !d.Hub }

func (d *demo) has(n *lab.Node) bool {
	for _, domain := range d.topo.Domains {
		for _, o := range domain.Nodes {
			if o == n {
				return d.rootless.has(n, domain)
			}
		}
	}
	return false
}

// sayRootless tells of it before anything begins.
func (d *demo) sayRootless() {
	if !d.rootless.edges {
		return
	}
	fmt.Fprintf(d.out, "  %s\n  Programs of such a node reach pods of other domains by the agent's SOCKS5 and port\n"+
		"  maps; its own pods are reached as always.\n\n", d.rootless.why)
}

// from is who sends for a pod: the pod, or on a rootless node, which has no route for
// its pods, a program of the node.
func (d *demo) from(p *lab.Pod) *lab.Host {
	if d.has(p.Node) {
		return p.Node.Host
	}
	return p.Host
}

// checkDatapath has every agent say what it uses.
func (d *demo) checkDatapath(ctx context.Context) error {
	for _, domain := range d.topo.Domains {
		for i, n := range domain.Nodes {
			s, err := domain.Agents[i].Status(ctx)
			if err != nil {
				return err
			}
			if d.rootless.has(n, domain) != (s.Datapath == "netstack") {
				return fmt.Errorf("the datapath of %s is %s: %s", n.Name, s.Datapath, s.DatapathReason)
			}
		}
	}
	return nil
}

// agentPings has the edges' agents ping the cloud's, where nobody else can ping.
func (d *demo) agentPings(ctx context.Context) error {
	for _, domain := range d.topo.Domains[1:] {
		if _, err := domain.Agents[0].Command(ctx, "ping", d.topo.Domains[0].Gateway().Name, "-c", "1"); err != nil {
			return err
		}
	}
	return nil
}

// callHeadless reaches a pod of the cloud by its name in the cluster's DNS, through
// the agent of a node.
func (d *demo) callHeadless(ctx context.Context, n *lab.Node) error {
	c, err := n.DialName(ctx, headlessName, port)
	if err != nil {
		return err
	}
	d.sums.lookups++
	t, err := lab.TransferOver(ctx, c, transferBytes/10)
	if err != nil {
		return fmt.Errorf("%s from %s: %w", headlessName, n.Name, err)
	}
	d.sums.transfers++
	d.sums.bytes += 2 * t.Bytes
	return nil
}

// expectSource says whether a server saw the right address.
func (d *demo) expectSource(from, to *lab.Pod, seen netip.Addr) bool {
	if d.has(to.Node) {
		return true // an address of the pod's own host; see docs/rootless.md
	}
	if !d.has(from.Node) {
		return seen == from.IP || seen == from.IP6
	}
	for _, s := range from.Node.Subnets {
		if s.Contains(seen) {
			return true
		}
	}
	return false
}

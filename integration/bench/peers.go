//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"text/tabwriter"
	"time"

	"corax/integration/lab"
)

const (
	idleTime   = 30 * time.Second
	idleSettle = 5 * time.Second // after the last change
	maxChanges = 20
	changeWait = 15 * time.Second
)

// peerFigures are those of one agent with so many peers.
type peerFigures struct {
	idle     float64 // share of a processor
	resident float64 // bytes
	applied  float64 // seconds until a changed object is in the kernel, median
	cost     float64 // CPU seconds of a changed object
}

// measurePeers adds domains to a hub and an edge that work: objects of which no
// agent runs, so nothing is exchanged with them.
// counts are how many domains there are, one after the other.
func measurePeers(ctx context.Context, corax string, p plan, counts []int, out io.Writer) error {
	sites := []lab.Site{hubSite, {Name: "edge", NATs: []lab.NAT{portRestricted}}}
	return onSites(ctx, corax, sites, func(ctx context.Context, t *lab.Topology) error {
		fmt.Fprint(out, "\nPeers that exchange nothing: objects of further edges, one subnet per family each\n")
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "peers\tagent\tCPU idle\tresident MB\tchange ms\tCPU ms\t")
		known := 0
		var most peerFigures // of the last count
		for _, n := range counts {
			for ; known < n; known++ {
				if err := furtherEdge(known, byte(known/250)).Write(t.Gateways); err != nil {
					return err
				}
			}
			most = peerFigures{}
			for _, d := range t.Domains {
				f, err := measureAgent(ctx, t, d, n, p)
				if err != nil {
					return fmt.Errorf("%s with %d peers: %w", d.Name, n, err)
				}
				most.idle, most.resident = max(most.idle, f.idle), max(most.resident, f.resident)
				fmt.Fprintf(w, "%d\t%s\t%.2f %%\t%.1f\t%.0f\t%.1f\t\n", n, d.Name, 100*f.idle, f.resident/mega, 1e3*f.applied, 1e3*f.cost)
			}
		}
		_ = w.Flush()
		printGoalList(out, []goal{
			{what: fmt.Sprintf("%d peers: CPU idle, %% of a core", known), value: 100 * most.idle, bound: 2, atMost: true, format: "%.2f"},
			{what: fmt.Sprintf("%d peers: resident memory, MB", known), value: most.resident / mega, bound: 100, atMost: true, format: "%.1f"},
		})
		return nil
	})
}

// furtherEdge is the Gateway of edge i, whose subnets depend on the second byte
// of its IPv4 subnet.
func furtherEdge(i int, second byte) lab.Gateway {
	name := fmt.Sprintf("further-%04d", i)
	key := sha256.Sum256([]byte(name)) // any 32 bytes are a public key
	return lab.Gateway{
		Name:      name,
		Endpoints: []lab.Endpoint{{Node: name, UnderNAT: true, PublicKey: base64.StdEncoding.EncodeToString(key[:])}},
		Nodes: []lab.GatewayNode{{
			Node: name, IP: netip.AddrFrom4([4]byte{192, 168, 1, 10}),
			Subnets: []netip.Prefix{
				netip.PrefixFrom(furtherAddr(i, second), 24),
				netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x20, second, byte(i >> 8), byte(i)}), 64),
			},
		}},
	}
}

func furtherAddr(i int, second byte) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 1 + second, byte(i % 250), 0})
}

func measureAgent(ctx context.Context, t *lab.Topology, d *lab.Domain, n int, p plan) (peerFigures, error) {
	var f peerFigures
	agent := d.Agents[0]
	known, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := agent.WaitStatus(known, func(s *lab.Status) error {
		if len(s.Peers) <= n {
			return fmt.Errorf("%d peers are known", len(s.Peers))
		}
		return nil
	}); err != nil {
		return f, err
	}
	if err := wait(ctx, min(idleSettle, 5*p.seconds)); err != nil {
		return f, err
	}
	begin, err := usageOf(agent.Process())
	if err != nil {
		return f, err
	}
	if err := wait(ctx, min(idleTime, 6*p.seconds)); err != nil {
		return f, err
	}
	end, err := usageOf(agent.Process())
	if err != nil {
		return f, err
	}
	f.idle = end.share(begin, 0)
	m, err := memoryOf(agent.Process())
	if err != nil {
		return f, err
	}
	f.resident = float64(m.now)
	changes := min(max(2, int(4*p.seconds.Seconds())), maxChanges)
	err = measureChanges(ctx, t, d, n, changes, &f)
	return f, err
}

// measureChanges changes the subnets of one of n objects several times.
func measureChanges(ctx context.Context, t *lab.Topology, d *lab.Domain, n, changes int, f *peerFigures) error {
	host, proc := d.Gateway().Host, d.Agents[0].Process()
	link, err := host.Netlink().LinkByName("corax0")
	if err != nil {
		return err
	}
	begin, err := usageOf(proc)
	if err != nil {
		return err
	}
	i := n / 2
	var took []float64
	for k := range changes {
		second := byte(100 + k%2)
		if k == changes-1 {
			second = byte(i / 250) // as it was
		}
		start := time.Now()
		if err := furtherEdge(i, second).Write(t.Gateways); err != nil {
			return err
		}
		if err := untilRouted(ctx, host, net.IP(furtherAddr(i, second).Next().AsSlice()), link.Attrs().Index); err != nil {
			return err
		}
		took = append(took, time.Since(start).Seconds())
	}
	f.applied = median(took)
	if err := wait(ctx, time.Second); err != nil { // what it does afterwards counts too
		return err
	}
	end, err := usageOf(proc)
	if err != nil {
		return err
	}
	f.cost = max(0, end.share(begin, 0)-f.idle) * end.at.Sub(begin.at).Seconds() / float64(changes)
	return nil
}

// untilRouted waits until the kernel sends an address to a link.
func untilRouted(ctx context.Context, host *lab.Host, to net.IP, link int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, changeWait, fmt.Errorf("a change was not applied within %s", changeWait))
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if routes, err := host.Netlink().RouteGet(to); err == nil && len(routes) == 1 && routes[0].LinkIndex == link {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"text/tabwriter"
	"time"

	"corax/integration/lab"
)

const (
	meshEdges = 15 // 105 pairs
	meshSize  = 1000
	meshTime  = 10 * time.Second
	meshWait  = 30 * time.Second
)

// meshRates are the datagrams that each edge sends to each other one, a second.
var meshRates = []int{1, 10, 50}

// measureHub has every pair of some edges, whose NATs cannot be opened, exchange
// datagrams over one hub.
func measureHub(ctx context.Context, corax string, p plan, edges int, out io.Writer) error {
	sites := []lab.Site{hubSite}
	for i := range edges {
		sites = append(sites, lab.Site{Name: fmt.Sprintf("edge-%02d", i), NATs: []lab.NAT{randomPorts}})
	}
	return onSites(ctx, corax, sites, func(ctx context.Context, t *lab.Topology) error {
		fmt.Fprintf(out, "\nA hub that relays for %d pairs, of %d edges whose NATs cannot be opened; datagrams of %d bytes; load %s\n",
			edges*(edges-1)/2, edges, meshSize, load())
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "each way /s\trelayed /s\tMbit/s\tarrived\thub CPU\tµs each\tan edge's CPU\thub MB\t")
		for _, rate := range append([]int{0}, meshRates...) {
			f, err := measureMesh(ctx, t, rate, min(meshTime, 2*p.seconds))
			if err != nil {
				return fmt.Errorf("%d datagrams a second: %w", rate, err)
			}
			each := 0.0
			if f.rate > 0 {
				each = 1e6 * f.hub / f.rate
			}
			fmt.Fprintf(w, "%d\t%.0f\t%.1f\t%s\t%.2f %%\t%s\t%.2f %%\t%.1f\t\n", rate, f.rate, f.rate*meshSize*8/1e6,
				number("%.1f %%", 100*f.arrived), 100*f.hub, number("%.1f", each), 100*f.edge, f.resident/mega)
		}
		return w.Flush()
	})
}

type meshFigures struct {
	rate      float64 // datagrams that arrived, a second
	arrived   float64 // share of those sent
	hub, edge float64 // share of a processor; edge: the mean of all
	resident  float64 // bytes, of the hub
}

// measureMesh runs the traffic of all pairs until every one has a path, and then
// measures for d. With rate 0 there is none.
func measureMesh(ctx context.Context, t *lab.Topology, rate int, d time.Duration) (f meshFigures, err error) {
	edges := t.Domains[1:]
	var mesh []*child
	defer func() {
		for _, c := range mesh {
			err = errors.Join(err, c.stop())
		}
	}()
	for _, e := range edges {
		if rate == 0 {
			break
		}
		args := []string{"mesh", strconv.Itoa(meshSize), strconv.Itoa(rate)}
		for _, other := range edges {
			if other != e {
				args = append(args, netip.AddrPortFrom(other.Gateway().Pods[0].IP, sinkPort).String())
			}
		}
		c, err := startChild(e.Gateway().Pods[0].Host, args...)
		if err != nil {
			return f, err
		}
		mesh = append(mesh, c)
	}
	if rate > 0 {
		if err := allRelayed(ctx, edges); err != nil {
			return f, err
		}
	}
	if err := wait(ctx, settle); err != nil {
		return f, err
	}
	first, err := sampleMesh(t, mesh)
	if err != nil {
		return f, err
	}
	if err := wait(ctx, d); err != nil {
		return f, err
	}
	last, err := sampleMesh(t, mesh)
	if err != nil {
		return f, err
	}
	for i := range edges {
		f.edge += last.share(first.usage, 1+i) / float64(len(edges))
	}
	f.hub = last.share(first.usage, 0)
	f.rate = float64(last.received-first.received) / last.at.Sub(first.at).Seconds()
	if rate > 0 {
		f.arrived = f.rate / float64(rate*len(edges)*(len(edges)-1))
	}
	m, err := memoryOf(t.Domains[0].Agents[0].Process())
	f.resident = float64(m.now)
	return f, err
}

// allRelayed waits until every edge reaches every other one over a relay.
func allRelayed(ctx context.Context, edges []*lab.Domain) error {
	ctx, cancel := context.WithTimeoutCause(ctx, meshWait, fmt.Errorf("not connected after %s", meshWait))
	defer cancel()
	for _, e := range edges {
		if err := e.Agents[0].WaitStatus(ctx, func(s *lab.Status) error {
			for _, other := range edges {
				if other == e {
					continue
				}
				if err := lab.OnPath(other.Gateway().Name, "relay")(s); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

type meshSample struct {
	usage
	received uint64
}

func sampleMesh(t *lab.Topology, mesh []*child) (s meshSample, err error) {
	for _, c := range mesh {
		n, err := c.counts()
		if err != nil {
			return s, err
		}
		s.received += n.packets
	}
	var procs []*lab.Process
	for _, a := range t.Agents() {
		procs = append(procs, a.Process())
	}
	s.usage, err = usageOf(procs...)
	return s, err
}

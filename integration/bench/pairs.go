//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"corax/integration/lab"
)

const (
	pairPort  = 7002
	pairLimit = 60 * time.Second // until direct
)

// pairKinds are the NATs of two edges, by their names in the lab. All pairs are in
// docs/nat.md, once each; these are measured several times.
var pairKinds = [][2]string{
	{"port-restricted", "port-restricted"},
	{"Linux", "Linux"},
	{"double", "address-restricted"},
	{"sequential", "port-restricted"},
	{"random", "full cone"},
	{"random", "port-restricted"},
	{"IPv6", "IPv6"},
	{"random", "random"},
	{"UDP blocked", "port-restricted"},
}

// pairFigures are how long it took from the first packet on.
type pairFigures struct {
	first, direct float64 // seconds; direct 0: it stayed relayed
}

func measurePairs(ctx context.Context, corax string, p plan, rounds int, out io.Writer) error {
	kinds := make(map[string]lab.Kind)
	for _, k := range lab.Kinds() {
		kinds[k.Name] = k
	}
	fmt.Fprint(out, "\nTwo edges and a hub: from the first packet to the first byte that comes back, and until the path is direct; median and most of all rounds\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NATs\tfirst byte ms\tdirect s\tof rounds")
	for _, names := range pairKinds {
		a, b := kinds[names[0]], kinds[names[1]]
		var first, direct []float64
		for range rounds {
			if err := awaitQuiet(ctx, p.quiet); err != nil {
				return err
			}
			f, err := measurePair(ctx, corax, a, b)
			if err != nil {
				return fmt.Errorf("%s and %s: %w", a.Name, b.Name, err)
			}
			first = append(first, f.first)
			if f.direct > 0 {
				direct = append(direct, f.direct)
			}
		}
		times := "relayed"
		if len(direct) > 0 {
			times = fmt.Sprintf("%.1f, %.1f", median(direct), direct[len(direct)-1]) // sorted by median
		}
		fmt.Fprintf(w, "%s - %s\t%.0f, %.0f\t%s\t%d/%d\n", a.Name, b.Name, 1e3*median(first), 1e3*first[len(first)-1], times, len(direct), rounds)
	}
	return w.Flush()
}

func measurePair(ctx context.Context, corax string, a, b lab.Kind) (f pairFigures, err error) {
	sites := []lab.Site{hubSite, {Name: "a", NATs: a.NATs, V6: a.V6}, {Name: "b", NATs: b.NATs, V6: b.V6}}
	err = onSites(ctx, corax, sites, func(ctx context.Context, t *lab.Topology) error {
		ctx, cancel := context.WithTimeout(ctx, pairLimit)
		defer cancel()
		from, to := t.Domains[1], t.Domains[2]
		pod := to.Gateway().Pods[0]
		if _, err := pod.Serve(pairPort, pod.IP); err != nil {
			return err
		}
		if err := wait(ctx, settle); err != nil { // the hub looks who is there every second
			return err
		}
		start := time.Now()
		flow, err := from.Gateway().Pods[0].StartFlow(ctx, netip.AddrPortFrom(pod.IP, pairPort))
		if err != nil {
			return err
		}
		defer func() { _, _ = flow.Stop() }()
		if err := flow.WaitMove(ctx); err != nil {
			return err
		}
		f.first = time.Since(start).Seconds()
		if !a.Direct(b) {
			return nil
		}
		if err := from.Agents[0].WaitStatus(ctx, lab.OnPath(to.Gateway().Name, "direct")); err != nil {
			return err
		}
		f.direct = time.Since(start).Seconds()
		return nil
	})
	return f, err
}

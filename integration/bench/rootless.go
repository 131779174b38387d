//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"text/tabwriter"
	"time"

	"corax/integration/lab"
)

const (
	outboundMap = "127.0.0.1:7011"  // on the edge: stands for the hub's pod
	wayNetstack = "corax, netstack" // the edge's agent is rootless
	wayTUN      = "corax, TUN"      // its agent has a TUN
)

// rootlessFigures are those of one way, inbound and outbound: from a pod of the hub
// to a pod of the edge, and from a program of the edge's node to the hub's pod.
type rootlessFigures struct {
	bitrate [2]float64
	cpu     [2]float64 // seconds of the edge's process per GB
	peak    float64    // resident memory of the edge's process, at most
}

// rootlessWay connects an edge behind a NAT with a hub.
type rootlessWay struct {
	name  string
	start func(ctx context.Context, t *lab.Topology) (proc *lab.Process, in, out string, err error)
}

func rootlessWays(corax string) []rootlessWay {
	agents := func(rootless bool) func(context.Context, *lab.Topology) (*lab.Process, string, string, error) {
		return func(ctx context.Context, t *lab.Topology) (*lab.Process, string, string, error) {
			return startRootless(ctx, t, corax, rootless)
		}
	}
	return []rootlessWay{{wayTUN, agents(false)}, {wayNetstack, agents(true)}}
}

// measureRootless compares a rootless edge with one that has a TUN.
func measureRootless(ctx context.Context, corax string, p plan, rounds int, out io.Writer) error {
	if why := coraxMissing(corax)(); why != "" {
		return errors.New(why)
	}
	ways := rootlessWays(corax)
	all := make([][]rootlessFigures, len(ways))
	for range rounds {
		for i, w := range ways {
			if err := awaitQuiet(ctx, p.quiet); err != nil {
				return err
			}
			f, err := measureRootlessWay(ctx, w, p)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			all[i] = append(all[i], f)
		}
	}
	fmt.Fprintf(out, "\nOne TCP connection between a hub with a TUN and an edge behind a NAT; in: to a pod of the edge, out: from a program of its node; medians of %d rounds; load %s\n", rounds, load())
	printRootless(out, ways, all)
	return nil
}

func measureRootlessWay(ctx context.Context, w rootlessWay, p plan) (f rootlessFigures, err error) {
	limit := setUpTime + 4*p.seconds + time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	l, err := lab.New(lab.Config{})
	if err != nil {
		return f, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w%s", err, lastLogs(l))
		}
		err = errors.Join(err, l.Close())
	}()
	t := lab.Internet(l, lab.InternetOptions{
		Sites: []lab.Site{hubSite, {Name: "edge", NATs: []lab.NAT{portRestricted}}},
		Node:  func(c *lab.NodeConfig) { c.PodMTU = podMTU },
	})
	if err := l.Err(); err != nil {
		return f, err
	}
	hub, edge := t.Domains[0].Gateway(), t.Domains[1].Gateway()
	var sinks [2]*child
	for i, pod := range []*lab.Pod{edge.Pods[0], hub.Pods[0]} {
		if sinks[i], err = startChild(pod.Host, "sink"); err != nil {
			return f, err
		}
		defer func() { _ = sinks[i].stop() }()
		if _, err := sinks[i].counts(); err != nil { // it listens
			return f, err
		}
	}
	proc, in, out, err := w.start(ctx, t)
	if err != nil {
		return f, err
	}
	for i, from := range []*lab.Host{hub.Pods[0].Host, edge.Host} {
		to := []string{in, out}[i]
		if err := until(ctx, func() error {
			c, err := from.Dial(ctx, "tcp", to)
			if err == nil {
				err = c.Close()
			}
			return err
		}); err != nil {
			return f, fmt.Errorf("to %s: %w", to, err)
		}
		if f.bitrate[i], f.cpu[i], err = oneStream(ctx, from, to, sinks[i], proc, p.seconds); err != nil {
			err = fmt.Errorf("to %s: %w", to, err)
			return f, err
		}
	}
	m, err := memoryOf(proc)
	f.peak = float64(m.peak)
	return f, err
}

// oneStream measures one TCP connection for d: its rate, and the CPU time of a
// process per GB.
func oneStream(ctx context.Context, from *lab.Host, to string, sink *child, proc *lab.Process, d time.Duration) (bitrate, cpu float64, err error) {
	source, err := startChild(from, "tcp", to)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, source.stop()) }()
	var used [2]usage
	var got [2]counts
	for i, pause := range []time.Duration{tcpWarmUp, d} {
		if err := wait(ctx, pause); err != nil {
			return 0, 0, err
		}
		if got[i], err = sink.counts(); err != nil {
			return 0, 0, err
		}
		if used[i], err = usageOf(proc); err != nil {
			return 0, 0, err
		}
	}
	bytes := float64(got[1].bytes - got[0].bytes)
	if bytes == 0 {
		return 0, 0, errors.New("nothing arrived")
	}
	return 8 * bytes / used[1].at.Sub(used[0].at).Seconds(), (used[1].cpu[0] - used[0].cpu[0]).Seconds() / (bytes / 1e9), nil
}

// startRootless starts agents on both sites.
func startRootless(ctx context.Context, t *lab.Topology, corax string, rootless bool) (*lab.Process, string, string, error) {
	if err := os.Setenv(lab.BinaryEnv, corax); err != nil {
		return nil, "", "", err
	}
	hub, edge := t.Domains[0].Gateway(), t.Domains[1].Gateway()
	t.Rootless = func(n *lab.Node) bool { return rootless && n == edge }
	if err := startSites(ctx, t); err != nil {
		return nil, "", "", err
	}
	a := t.Domains[1].Agents[0]
	in := netip.AddrPortFrom(edge.Pods[0].IP, sinkPort).String()
	out := netip.AddrPortFrom(hub.Pods[0].IP, sinkPort).String()
	if rootless {
		if _, err := a.Command(ctx, "forward", "add", "tcp/"+outboundMap+"="+out); err != nil {
			return nil, "", "", err
		}
		out = outboundMap
	}
	return a.Process(), in, out, nil
}

// printRootless prints the medians, and the goals.
func printRootless(out io.Writer, ways []rootlessWay, all [][]rootlessFigures) {
	get := func(i int, f func(rootlessFigures) float64) float64 {
		var v []float64
		for _, r := range all[i] {
			v = append(v, f(r))
		}
		return median(v)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "edge\tin Gbit/s\tCPU s/GB\tout Gbit/s\tCPU s/GB\tresident MB\t")
	rate := make(map[string][2]float64)
	for i, way := range ways {
		var r, c [2]float64
		for k := range r {
			r[k] = get(i, func(f rootlessFigures) float64 { return f.bitrate[k] })
			c[k] = get(i, func(f rootlessFigures) float64 { return f.cpu[k] })
		}
		rate[way.name] = r
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f\t\n", way.name, r[0]/1e9, c[0], r[1]/1e9, c[1],
			get(i, func(f rootlessFigures) float64 { return f.peak })/mega)
	}
	_ = w.Flush()
	var list []goal
	for k, direction := range []string{"in", "out"} {
		list = append(list, goal{
			what: "netstack / TUN, " + direction, value: rate[wayNetstack][k] / rate[wayTUN][k], bound: 0.6, format: "%.2f",
		})
	}
	printGoalList(out, list)
}

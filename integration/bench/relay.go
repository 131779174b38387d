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
	// A steady stream of datagrams that everything on the way can carry.
	steadySize = 1300  // bytes of payload
	steadyRate = 30000 // a second
)

// relayWay is a way between two edges behind port-restricted NATs.
type relayWay struct {
	name string
	nat  lab.NAT // of a
	kind string  // of a's path
	// blocked keeps the edges from reaching each other directly.
	blocked bool
}

// The names that the ratio speaks of.
const (
	wayDirect = "direct"
	wayRelay  = "relay"
)

func relayWays() []relayWay {
	return []relayWay{
		{wayDirect, portRestricted, "direct", false},
		{wayRelay, portRestricted, "relay", true},
		{"relay, a over TLS", udpBlocked, "relay-tls", true},
	}
}

// wayFigures are those of one kind of traffic on one way.
type wayFigures struct {
	bitrate float64 // received payload, in bit/s
	loss    float64
	hub     float64    // CPU seconds per GB received: of the hub,
	gateway [2]float64 // and of the gateways of a, which sends, and b
}

// measureRelay compares the hub's CPU time for what it relays with the gateways'
// for the same traffic over the direct way.
func measureRelay(ctx context.Context, corax string, p plan, rounds int, out io.Writer) error {
	ways := relayWays()
	var tcp, udp [][]wayFigures // by way and round
	tcp, udp = make([][]wayFigures, len(ways)), make([][]wayFigures, len(ways))
	for range rounds {
		for i, w := range ways {
			if err := awaitQuiet(ctx, p.quiet); err != nil {
				return err
			}
			t, u, err := measureWay(ctx, corax, w, p)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			tcp[i], udp[i] = append(tcp[i], t), append(udp[i], u)
		}
	}
	fmt.Fprintf(out, "\nTwo edges behind NATs and a hub; CPU seconds per GB of the agents; Gbit/s that one core of the relay, or of one gateway, would carry; load %s\n", load())
	aim := func(what string, value float64) goal {
		return goal{what: "a core of the relay / of a gateway, " + what, value: value, bound: 0.8, format: "%.2f"}
	}
	printGoalList(out, []goal{
		aim("TCP", printWays(out, "one TCP connection, as fast as it goes", ways, tcp)),
		aim("UDP", printWays(out, fmt.Sprintf("UDP, %d datagrams of %d bytes a second", steadyRate, steadySize), ways, udp)),
	})
	return nil
}

// printWays prints the medians, and returns what a core of the relay carries in
// comparison to one of a gateway on the direct way.
func printWays(out io.Writer, traffic string, ways []relayWay, all [][]wayFigures) (ratio float64) {
	fmt.Fprintf(out, "%s:\n", traffic)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "way\tGbit/s\tloss\ta\thub\tb\tper core\t/direct\t")
	var direct float64
	for i, way := range ways {
		get := func(f func(wayFigures) float64) float64 {
			var v []float64
			for _, r := range all[i] {
				v = append(v, f(r))
			}
			return median(v)
		}
		perCore := get(func(f wayFigures) float64 { return f.perCore(way.name != wayDirect) })
		switch way.name {
		case wayDirect:
			direct = perCore
		case wayRelay:
			ratio = perCore / direct
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.0f %%\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", way.name,
			get(func(f wayFigures) float64 { return f.bitrate })/1e9, 100*get(func(f wayFigures) float64 { return f.loss }),
			get(func(f wayFigures) float64 { return f.gateway[0] }), get(func(f wayFigures) float64 { return f.hub }),
			get(func(f wayFigures) float64 { return f.gateway[1] }), perCore, perCore/direct)
	}
	_ = w.Flush()
	return ratio
}

// perCore is what a core of the relay would carry, or of a gateway, in Gbit/s.
func (f wayFigures) perCore(relayed bool) float64 {
	cost := (f.gateway[0] + f.gateway[1]) / 2
	if relayed {
		cost = f.hub
	}
	if cost == 0 {
		return 0
	}
	return 8 / cost
}

func measureWay(ctx context.Context, corax string, w relayWay, p plan) (tcp, udp wayFigures, err error) {
	sites := []lab.Site{hubSite, {Name: "a", NATs: []lab.NAT{w.nat}}, {Name: "b", NATs: []lab.NAT{portRestricted}}}
	err = onSites(ctx, corax, sites, func(ctx context.Context, t *lab.Topology) error {
		ctx, cancel := context.WithTimeoutCause(ctx, p.limit(), fmt.Errorf("not done after %s", p.limit()))
		defer cancel()
		a, b := t.Domains[1], t.Domains[2]
		if w.blocked {
			a.Router.Block(b.WANAddr())
		}
		to := b.Gateway().Pods[0]
		if _, err := a.Gateway().Pods[0].PingUntil(ctx, to.IP, lab.PingOptions{}); err != nil {
			return err
		}
		if err := a.Agents[0].WaitStatus(ctx, lab.OnPath(b.Gateway().Name, w.kind)); err != nil {
			return err
		}
		sink, err := startChild(to.Host, "sink")
		if err != nil {
			return err
		}
		defer func() { _ = sink.stop() }()
		if _, err := sink.counts(); err != nil { // it listens
			return err
		}
		at := netip.AddrPortFrom(to.IP, sinkPort).String()
		if tcp, err = flow(ctx, t, sink, p.seconds, "tcp", at); err != nil {
			return err
		}
		udp, err = flow(ctx, t, sink, p.seconds, "udp", at, strconv.Itoa(steadySize), strconv.Itoa(steadyRate))
		if err != nil {
			return err
		}
		return a.Agents[0].WaitStatus(ctx, lab.OnPath(b.Gateway().Name, w.kind)) // still
	})
	return tcp, udp, err
}

// flow runs traffic from the pod of a to the sink, and measures for d.
func flow(ctx context.Context, t *lab.Topology, sink *child, d time.Duration, args ...string) (f wayFigures, err error) {
	source, err := startChild(t.Domains[1].Gateway().Pods[0].Host, args...)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, source.stop()) }()
	if err := wait(ctx, tcpWarmUp); err != nil {
		return f, err
	}
	first, err := sampleFlow(t, source, sink)
	if err != nil {
		return f, err
	}
	if err := wait(ctx, d); err != nil {
		return f, err
	}
	last, err := sampleFlow(t, source, sink)
	if err != nil {
		return f, err
	}
	bytes := float64(last.received.bytes - first.received.bytes)
	if bytes == 0 {
		return f, fmt.Errorf("%s: nothing arrived", args[0])
	}
	perGB := func(i int) float64 { return (last.cpu[i] - first.cpu[i]).Seconds() / (bytes / 1e9) }
	f = wayFigures{
		bitrate: bytes * 8 / last.at.Sub(first.at).Seconds(),
		hub:     perGB(0), gateway: [2]float64{perGB(1), perGB(2)},
	}
	if sent := float64(last.sent.packets - first.sent.packets); sent > 0 {
		f.loss = max(0, 1-float64(last.received.packets-first.received.packets)/sent)
	}
	return f, nil
}

type flowSample struct {
	usage
	received, sent counts
}

func sampleFlow(t *lab.Topology, source, sink *child) (s flowSample, err error) {
	var errs [3]error
	s.received, errs[0] = sink.counts()
	s.sent, errs[1] = source.counts()
	var procs []*lab.Process
	for _, a := range t.Agents() {
		procs = append(procs, a.Process())
	}
	s.usage, errs[2] = usageOf(procs...)
	return s, errors.Join(errs[:]...)
}

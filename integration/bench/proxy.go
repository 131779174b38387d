//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"corax/integration/lab"
)

const (
	kubeletPort = 10250 // the server on the node
	frontPort   = 10281 // of a front, or of a plain TCP proxy
)

// proxyWay is a way from a host of one domain to a port of a node of the other.
type proxyWay struct {
	name   string
	system system
	// open returns where a client on gateway node a connects to, and the processes
	// that carry streams on both gateway nodes.
	open func(ctx context.Context, n *network, g gateways) (netip.AddrPort, [2][]*lab.Process, error)
}

// proxyFigures are those of one way.
type proxyFigures struct {
	up, down         float64       // bit/s of one stream
	trip, first      time.Duration // on an open stream; of a new one
	rate             float64       // new streams a second
	memoryA, memoryB float64       // bytes a stream, on each gateway node
}

func proxyWays(corax string) []proxyWay {
	wg := &wireguardGo{}
	return []proxyWay{
		{"direct", system{nameKernel, installed(), startKernel}, openDirect},
		{"TCP proxy, wireguard-go", system{nameWireGuard, wg.build, wg.start(nil)}, openRelay},
		{"corax", system{nameCorax, coraxMissing(corax), startCorax(corax)}, openFront},
	}
}

// cniAddr is the address of a node in its own subnet.
func cniAddr(n *lab.Node) netip.Addr { return n.Subnets[0].Masked().Addr().Next() }

func openDirect(_ context.Context, n *network, _ gateways) (netip.AddrPort, [2][]*lab.Process, error) {
	return netip.AddrPortFrom(cniAddr(n.sides[1].node), kubeletPort), [2][]*lab.Process{}, nil
}

// openRelay starts a TCP proxy on each gateway node, joined by the tunnel.
func openRelay(_ context.Context, n *network, g gateways) (at netip.AddrPort, procs [2][]*lab.Process, err error) {
	a, b := n.sides[0].gw, n.sides[1].gw
	far := netip.AddrPortFrom(cniAddr(b), frontPort)
	at = netip.AddrPortFrom(a.IP, frontPort)
	for i, r := range []struct {
		host             *lab.Node
		listen, to, from string
	}{
		{a, at.String(), far.String(), cniAddr(a).String()},
		{b, far.String(), netip.AddrPortFrom(n.sides[1].node.IP, kubeletPort).String(), "-"},
	} {
		c, err := startChild(r.host.Host, "stream-relay", r.listen, r.to, r.from)
		if err != nil {
			return at, procs, err
		}
		procs[i] = []*lab.Process{c.proc, g[i]}
	}
	return at, procs, nil
}

func openFront(_ context.Context, n *network, g gateways) (netip.AddrPort, [2][]*lab.Process, error) {
	return netip.AddrPortFrom(n.sides[0].gw.IP, frontPort), [2][]*lab.Process{{g[0]}, {g[1]}}, nil
}

// measureProxy compares streams to a node by a front with the same over a plain TCP
// proxy and without anything in between.
func measureProxy(ctx context.Context, corax string, p plan, rounds int, out io.Writer) error {
	ways := proxyWays(corax)
	all := make([][]proxyFigures, len(ways))
	for range rounds {
		for i, w := range ways {
			if why := w.system.missing(); why != "" {
				return fmt.Errorf("%s: %s", w.name, why)
			}
			if err := awaitQuiet(ctx, p.quiet); err != nil {
				return err
			}
			f, err := measureProxyWay(ctx, w, p)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			all[i] = append(all[i], f)
		}
	}
	fmt.Fprintf(out, "\nStreams from one domain to a port of a node of another by a front, TLS passed through; medians of %d rounds; load %s\n", rounds, load())
	printProxy(out, ways, all)
	return measureProxyDelay(ctx, corax, p, out)
}

func measureProxyWay(ctx context.Context, w proxyWay, p plan) (f proxyFigures, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, setUpTime+8*p.seconds+time.Minute, fmt.Errorf("%s is not done in time", w.name))
	defer cancel()
	l, err := lab.New(lab.Config{})
	if err != nil {
		return f, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w%s", err, lastLogs(l))
		}
		_ = l.Close()
	}()
	n, err := newNetwork(l)
	if err != nil {
		return f, err
	}
	for _, s := range n.sides { // else the ports of one address run out in TIME-WAIT
		s.gw.Sysctl("net.ipv4.tcp_tw_reuse", "1")
		s.gw.Sysctl("net.ipv4.ip_local_port_range", "11000 65535")
	}
	b := &bench{plan: p, name: w.name, net: n}
	defer func() { _ = b.tearDown() }()
	if err := b.setUp(ctx, w.system); err != nil {
		return f, err
	}
	if _, err := startChild(n.sides[1].node.Host, "stream-server", ":"+strconv.Itoa(kubeletPort)); err != nil {
		return f, err
	}
	at, procs, err := w.open(ctx, n, b.gws)
	if err != nil {
		return f, err
	}
	if err := until(ctx, func() error { // it listens
		c, err := n.sides[0].gw.DialTCP(ctx, at)
		if err == nil {
			err = c.Close()
		}
		return err
	}); err != nil {
		return f, err
	}
	return runClient(ctx, n.sides[0].gw.Host, at, n.sides[1].node.Name, procs, p)
}

// runClient measures streams to a node by an address.
func runClient(ctx context.Context, from *lab.Host, at netip.AddrPort, node string, procs [2][]*lab.Process, p plan) (f proxyFigures, err error) {
	c, err := startChild(from, "stream-client", at.String(), node, p.seconds.String())
	if err != nil {
		return f, err
	}
	defer func() { _ = c.stop() }()
	line, err := c.line(ctx)
	if err != nil {
		return f, err
	}
	var trip, first float64
	if _, err := fmt.Sscan(line, &f.up, &f.down, &trip, &first, &f.rate); err != nil {
		return f, fmt.Errorf("the client printed %q: %w", line, err)
	}
	f.trip, f.first = time.Duration(trip), time.Duration(first)
	var before, after [2]float64
	for i := range procs {
		if before[i], err = residentOf(procs[i]); err != nil {
			return f, err
		}
	}
	if _, err := c.ask.WriteString("\n"); err != nil {
		return f, c.ended(err)
	}
	if _, err := c.line(ctx); err != nil {
		return f, err
	}
	if err := wait(ctx, 2*time.Second); err != nil { // buffers go back
		return f, err
	}
	for i := range procs {
		if after[i], err = residentOf(procs[i]); err != nil {
			return f, err
		}
	}
	f.memoryA, f.memoryB = (after[0]-before[0])/idleStreams, (after[1]-before[1])/idleStreams
	return f, nil
}

// line waits for a line of the process.
func (c *child) line(ctx context.Context) (string, error) {
	deadline, _ := ctx.Deadline()
	if err := c.tell.SetReadDeadline(deadline); err != nil {
		return "", err
	}
	line, err := c.lines.ReadString('\n')
	if err != nil {
		return "", c.ended(err)
	}
	return strings.TrimSpace(line), nil
}

// residentOf is the memory that processes have, in bytes.
func residentOf(procs []*lab.Process) (float64, error) {
	sum := 0
	for _, p := range procs {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "statm"))
		if err != nil {
			return 0, err
		}
		pages, err := strconv.Atoi(strings.Fields(string(b))[1])
		if err != nil {
			return 0, err
		}
		sum += pages * os.Getpagesize()
	}
	return float64(sum), nil
}

// printProxy prints the medians, and what they are of those of the plain proxy.
func printProxy(out io.Writer, ways []proxyWay, all [][]proxyFigures) {
	get := func(i int, f func(proxyFigures) float64) float64 {
		var v []float64
		for _, r := range all[i] {
			v = append(v, f(r))
		}
		return median(v)
	}
	columns := []struct {
		title, format string
		value         func(proxyFigures) float64
		scale         float64
	}{
		{"Gbit/s there", "%.2f", func(f proxyFigures) float64 { return f.up }, 1e9},
		{"back", "%.2f", func(f proxyFigures) float64 { return f.down }, 1e9},
		{"round trip ms", "%.3f", func(f proxyFigures) float64 { return float64(f.trip) }, 1e6},
		{"new stream ms", "%.3f", func(f proxyFigures) float64 { return float64(f.first) }, 1e6},
		{"streams/s", "%.0f", func(f proxyFigures) float64 { return f.rate }, 1},
		{"KB a stream a", "%.1f", func(f proxyFigures) float64 { return f.memoryA }, 1e3},
		{"b", "%.1f", func(f proxyFigures) float64 { return f.memoryB }, 1e3},
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "way\t")
	for _, c := range columns {
		fmt.Fprint(w, c.title, "\t")
	}
	fmt.Fprintln(w)
	for i, way := range ways {
		fmt.Fprint(w, way.name, "\t")
		for _, c := range columns {
			fmt.Fprintf(w, c.format+"\t", get(i, c.value)/c.scale)
		}
		fmt.Fprintln(w)
	}
	last := len(ways) - 1
	fmt.Fprint(w, "corax / TCP proxy\t")
	for _, c := range columns[:5] {
		ratio := get(last, c.value) / get(last-1, c.value)
		fmt.Fprintf(w, "%.2f\t", ratio)
	}
	fmt.Fprintln(w, "\t\t")
	_ = w.Flush()
	memory := max(get(last, columns[5].value), get(last, columns[6].value)) / 1024
	printGoalList(out, []goal{
		{what: "throughput / TCP proxy over wireguard-go, there", value: get(last, columns[0].value) / get(last-1, columns[0].value), bound: 0.8, format: "%.2f"},
		{what: "throughput / TCP proxy over wireguard-go, back", value: get(last, columns[1].value) / get(last-1, columns[1].value), bound: 0.8, format: "%.2f"},
		{what: "KiB of memory for an idle stream", value: memory, bound: 64, atMost: true, format: "%.1f"},
	})
}

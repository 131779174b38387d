//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"time"

	"corax/integration/lab"
)

// oneWay is the delay of the WAN in each direction: without one, latency is the
// processors' alone.
const oneWay = 10 * time.Millisecond

// measureProxyDelay measures what a stream waits for over a WAN with a delay, in
// round trips of the path: from a hub to an edge behind a NAT.
func measureProxyDelay(ctx context.Context, corax string, p plan, out io.Writer) (err error) {
	if err := os.Setenv(lab.BinaryEnv, corax); err != nil {
		return err
	}
	l, err := lab.New(lab.Config{})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w%s", err, lastLogs(l))
		}
		err = errors.Join(err, l.Close())
	}()
	t := lab.Internet(l, lab.InternetOptions{Sites: []lab.Site{hubSite, {Name: "a", NATs: []lab.NAT{portRestricted}}}, Shaped: true})
	t.Proxy = true
	hub, edge := t.Domains[0].Gateway(), t.Domains[1].Gateway()
	t.Domains[1].Router.Shape("wan", lab.LinkConfig{Out: lab.Shape{Delay: oneWay}, In: lab.Shape{Delay: oneWay}})
	if err := l.Err(); err != nil {
		return err
	}
	if err := startSites(ctx, t); err != nil {
		return err
	}
	if _, err := startChild(edge.Host, "stream-server", ":"+strconv.Itoa(kubeletPort)); err != nil {
		return err
	}
	trip, err := t.Domains[0].Gateway().Pods[0].PingUntil(ctx, edge.Pods[0].IP, lab.PingOptions{})
	for range 9 { // the least of ten
		if err != nil {
			return err
		}
		var one time.Duration
		if one, err = hub.Pods[0].Ping(ctx, edge.Pods[0].IP, lab.PingOptions{}); one < trip {
			trip = one
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	p.seconds = 2 * time.Second
	f, err := runClient(ctx, hub.Host, netip.AddrPortFrom(hub.IP, frontPort), edge.Name, [2][]*lab.Process{}, p)
	if err != nil {
		return err
	}
	open, first := float64(f.trip)/float64(trip), float64(f.first)/float64(trip)
	fmt.Fprintf(out, "\nOver a WAN with a delay; round trip of the tunnel %v\n", trip.Round(10*time.Microsecond))
	fmt.Fprintf(out, "  a request on an open stream     %v, %.2f round trips; directly 1\n", f.trip.Round(10*time.Microsecond), open)
	fmt.Fprintf(out, "  a new stream and its request    %v, %.2f round trips; directly 2\n", f.first.Round(10*time.Microsecond), first)
	printGoalList(out, []goal{
		{what: "round trips added to a request on an open stream", value: open - 1, bound: 2, atMost: true, format: "%.2f"},
		{what: "round trips added to a new stream", value: first - 2, bound: 2, atMost: true, format: "%.2f"},
	})
	return nil
}

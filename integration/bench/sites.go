//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"corax/integration/lab"
)

// stunServer is on the host that all packets of the WAN pass.
var stunServer = netip.MustParseAddrPort("203.0.113.1:3478")

// NATs of edges, without IPv6.
var (
	portRestricted = lab.NAT{Mapping: lab.MapCone, V6: lab.V6Block}
	randomPorts    = lab.NAT{Mapping: lab.MapRandom, V6: lab.V6Block}
	udpBlocked     = lab.NAT{Mapping: lab.MapKeepPort, BlockUDP: true, V6: lab.V6Block}

	hubSite = lab.Site{Name: "hub", Hub: true}
)

// onSites builds sites around a WAN with an agent on each, waits until every
// edge reaches every hub and knows its NAT, runs f, and takes everything down.
func onSites(ctx context.Context, corax string, list []lab.Site, f func(context.Context, *lab.Topology) error) (err error) {
	if why := coraxMissing(corax)(); why != "" {
		return errors.New(why)
	}
	if err := os.Setenv(lab.BinaryEnv, corax); err != nil {
		return err
	}
	l, err := lab.New(lab.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	t := lab.Internet(l, lab.InternetOptions{Sites: list, Node: func(c *lab.NodeConfig) { c.PodMTU = podMTU }})
	if err := l.Err(); err != nil {
		return err
	}
	err = startSites(ctx, t)
	if err == nil {
		err = f(ctx, t)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w%s", err, lastLogs(l))
	}
	return err
}

func startSites(ctx context.Context, t *lab.Topology) error {
	ctx, cancel := context.WithTimeoutCause(ctx, setUpTime, fmt.Errorf("not connected after %s", setUpTime))
	defer cancel()
	// One hub alone cannot show whether a mapping depends on the destination.
	if err := t.Internet.ServeSTUN(stunServer); err != nil {
		return err
	}
	if err := t.Start(ctx, "--stun-server", stunServer.String()); err != nil {
		return err
	}
	var hubs []string
	for _, d := range t.Domains {
		if d.Hub {
			hubs = append(hubs, d.Gateway().Name)
		}
	}
	for _, d := range t.Domains {
		if d.Hub {
			continue
		}
		if err := d.Agents[0].WaitStatus(ctx, func(s *lab.Status) error {
			if err := lab.Reached(hubs...)(s); err != nil {
				return err
			}
			if s.Peer(hubs[0]).NAT.Local == "" {
				return fmt.Errorf("%s does not know its NAT yet", d.Name)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// usage is what processes have used at a moment.
type usage struct {
	at  time.Time
	cpu []time.Duration // of each
}

func usageOf(procs ...*lab.Process) (usage, error) {
	u := usage{at: time.Now()}
	for _, p := range procs {
		cpu, err := cpuOf(p)
		if err != nil {
			return u, err
		}
		u.cpu = append(u.cpu, cpu)
	}
	return u, nil
}

// share is the part of a processor that process i used since an earlier moment.
func (u usage) share(since usage, i int) float64 {
	return (u.cpu[i] - since.cpu[i]).Seconds() / u.at.Sub(since.at).Seconds()
}

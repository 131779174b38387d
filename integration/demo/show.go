//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"corax/integration/lab"
)

const picture = `
  cloud  203.0.113.128/25          edge-a  192.168.1.0/24     edge-b  192.168.1.0/24
  ┌──────────┐ ┌─────────┐         ┌─────────┐ ┌────────┐     ┌─────────┐ ┌────────┐
  │ cloud-gw │ │ cloud-1 │         │edge-a-gw│ │edge-a-1│     │edge-b-gw│ │edge-b-1│
  │ pod      │ │ pod     │         │ pod     │ │ pod    │     │ pod     │ │ pod    │
  └────┬─────┘ └────┬────┘         └────┬────┘ └───┬────┘     └────┬────┘ └───┬────┘
       └─────┬──────┘                   └───┬──────┘               └───┬──────┘
          internet ══════════ WAN ═════════NAT════════════════════════NAT

  Corax agents: WireGuard between the gateway nodes, VXLAN inside each domain,
  all in userspace. The edges use the same addresses, and cannot be reached from
  outside: cloud-gw relays between them until their NATs are open.
`

const (
	port          = 7000
	transferBytes = 10 << 20
	serviceName   = "web.default.svc.cluster.local"
	headlessName  = "web-0.web.default.svc.cluster.local"
)

// demo is one run: what it sent is counted in sums.
type demo struct {
	out  io.Writer
	topo *lab.Topology
	sums sums

	rootless rootless
}

type sums struct {
	pings, datagrams, lookups int
	transfers                 int
	bytes                     int64
	pingTime                  time.Duration
}

func show(ctx context.Context, l *lab.Lab, out io.Writer, r rootless) error {
	d := &demo{out: out, rootless: r}
	if err := d.steps(ctx, l); err != nil {
		return err
	}
	if err := d.edgeToEdge(ctx); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return fmt.Errorf("from edge to edge: %w", err)
	}
	return d.summary(ctx)
}

// steps are what is shown before the transfer between the edges.
func (d *demo) steps(ctx context.Context, l *lab.Lab) error {
	out := d.out
	fmt.Fprintln(out, "Corax: the pods of three network domains, connected in userspace")
	fmt.Fprint(out, picture, "\n")
	d.sayRootless()
	for _, step := range []struct {
		text string
		run  func(context.Context) error
	}{
		{"build the networks: namespaces, NATs, pods", func(context.Context) error { return d.build(l) }},
		{"start an agent on each of the 6 nodes", d.start},
		{"ping, IPv4 and IPv6, edge pods and cloud pods", d.ping},
		{"TCP, 10 MB each way with SHA-256", d.transfer},
		{"UDP echo, 1200 bytes", d.datagrams},
		{"host programs of an edge to cloud pods", d.hosts},
		{"a Service by name, from every pod", d.service},
	} {
		start := time.Now()
		fmt.Fprintf(out, "  %-48s", step.text)
		if err := step.run(ctx); err != nil {
			fmt.Fprintln(out, "failed")
			if ctx.Err() != nil {
				return fmt.Errorf("%s: %w: %w", step.text, context.Cause(ctx), err)
			}
			return fmt.Errorf("%s: %w", step.text, err)
		}
		fmt.Fprintf(out, "ok %7s\n", time.Since(start).Round(10*time.Millisecond))
	}
	return nil
}

// build makes the networks and a test server on each pod.
func (d *demo) build(l *lab.Lab) error {
	d.topo = lab.Standard(l, lab.Options{NAT: lab.NAT{Mapping: lab.MapCone}})
	if err := l.Err(); err != nil {
		return err
	}
	if err := d.topo.Internet.ServeSTUN(stunServer); err != nil {
		return err
	}
	for _, n := range d.topo.Nodes() {
		if _, err := n.Pods[0].Serve(port); err != nil {
			return err
		}
	}
	return d.addServices()
}

// start starts the agents, and has each say what it uses.
func (d *demo) start(ctx context.Context) error {
	d.topo.Rootless = d.has
	dns := d.topo.Domains[0].Nodes[1].Pods[0].IP
	if err := d.topo.Start(ctx, "--stun-server", stunServer.String(), "--cluster-dns", dns.String()); err != nil {
		return err
	}
	return d.checkDatapath(ctx)
}

// pairs calls f with each pod of an edge and each pod of the cloud, both ways,
// and with each of the second one's addresses.
func (d *demo) pairs(f func(from, to *lab.Pod, at netip.Addr) error) error {
	for _, cloud := range d.topo.Domains[0].Nodes {
		for _, domain := range d.topo.Domains[1:] {
			for _, edge := range domain.Nodes {
				for _, p := range [][2]*lab.Pod{{edge.Pods[0], cloud.Pods[0]}, {cloud.Pods[0], edge.Pods[0]}} {
					for _, to := range []netip.Addr{p[1].IP, p[1].IP6} {
						if err := f(p[0], p[1], to); err != nil {
							return err
						}
					}
				}
			}
		}
	}
	return nil
}

func (d *demo) ping(ctx context.Context) error {
	if d.rootless.all {
		return d.agentPings(ctx)
	}
	return d.pairs(func(from, _ *lab.Pod, to netip.Addr) error {
		if d.has(from.Node) {
			return nil // pings have no way out of it
		}
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if _, err := from.PingUntil(ctx, to, lab.PingOptions{}); err != nil {
			return err
		}
		rtt, err := from.PingUntil(ctx, to, lab.PingOptions{}) // without the handshake's time
		d.sums.pings += 2
		d.sums.pingTime += rtt
		return err
	})
}

func (d *demo) transfer(ctx context.Context) error {
	return d.pairs(func(from, _ *lab.Pod, to netip.Addr) error {
		if to.Is6() && from.Node != d.topo.Domains[1].Nodes[1] {
			return nil // IPv6 from one pod is enough to see
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		t, err := d.from(from).Transfer(ctx, netip.AddrPortFrom(to, port), transferBytes)
		if err != nil {
			return err
		}
		d.sums.transfers++
		d.sums.bytes += 2 * t.Bytes
		return nil
	})
}

func (d *demo) datagrams(ctx context.Context) error {
	return d.pairs(func(from, pod *lab.Pod, to netip.Addr) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		at := netip.AddrPortFrom(to, port)
		if _, err := d.from(from).EchoUDP(ctx, at, 1200); err != nil {
			return err
		}
		seen, err := d.from(from).WhoAmI(ctx, "udp", at)
		d.sums.datagrams += 2
		if err == nil && !d.expectSource(from, pod, seen) {
			err = fmt.Errorf("%s sees %s as %s: its address was hidden", to, from.Name, seen)
		}
		return err
	})
}

// hosts sends from a plain node's own network namespace.
func (d *demo) hosts(ctx context.Context) error {
	for _, domain := range d.topo.Domains[1:] {
		for _, n := range domain.Nodes {
			for _, cloud := range d.topo.Domains[0].Nodes {
				ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
				t, err := n.Transfer(ctx, netip.AddrPortFrom(cloud.Pods[0].IP, port), transferBytes/10)
				cancel()
				if err != nil {
					return err
				}
				d.sums.transfers++
				d.sums.bytes += 2 * t.Bytes
			}
		}
	}
	return nil
}

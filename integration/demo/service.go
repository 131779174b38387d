//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"corax/integration/lab"
)

// addServices lays a DNS Service with its server in the cloud, and a web Service
// with an endpoint in the cloud; every node has the rules kube-proxy would lay.
func (d *demo) addServices() error {
	backend := d.topo.Domains[0].Nodes[1].Pods[0]
	dns, web := dnsIP(), webIP()
	if err := backend.ServeDNS(backend.IP, map[string][]netip.Addr{
		serviceName: {web}, headlessName: {d.topo.Domains[0].Gateway().Pods[0].IP},
	}); err != nil {
		return err
	}
	d.topo.AddService(lab.Service{
		IP: dns, Port: 53, Protocol: lab.UDP,
		Backends: []netip.AddrPort{netip.AddrPortFrom(backend.IP, 53)},
	})
	d.topo.AddService(lab.Service{
		IP: web, Port: 80, Protocol: lab.TCP,
		Backends: []netip.AddrPort{netip.AddrPortFrom(d.topo.Domains[0].Gateway().Pods[0].IP, port)},
	})
	return d.topo.Lab.Err()
}

func dnsIP() netip.Addr { return netip.AddrFrom4([4]byte{10, 96, 0, 10}) }
func webIP() netip.Addr { return netip.AddrFrom4([4]byte{10, 96, 0, 80}) }

func (d *demo) service(ctx context.Context) error {
	for _, domain := range d.topo.Domains[1:] {
		for _, n := range domain.Nodes {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			call := func() error { return d.callByName(ctx, n.Pods[0]) }
			if d.has(n) {
				call = func() error { return d.callHeadless(ctx, n) }
			}
			err := call()
			cancel()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *demo) callByName(ctx context.Context, from *lab.Pod) error {
	addrs, err := from.Lookup(ctx, dnsIP(), "ip4", serviceName)
	if err != nil {
		return err
	}
	if len(addrs) != 1 || addrs[0] != webIP() {
		return fmt.Errorf("%s is %v, want %s", serviceName, addrs, webIP())
	}
	d.sums.lookups++
	t, err := from.Transfer(ctx, netip.AddrPortFrom(addrs[0], 80), transferBytes/10)
	if err != nil {
		return err
	}
	d.sums.transfers++
	d.sums.bytes += 2 * t.Bytes
	return nil
}

// summary prints the hub's peers and what was sent.
func (d *demo) summary(ctx context.Context) error {
	if err := d.noKernelTunnel(); err != nil {
		return err
	}
	hub := d.topo.Domains[0].Agents[0]
	table, err := hub.Command(ctx, "status", "-o", "table")
	if err != nil {
		return fmt.Errorf("corax status on the hub: %w", err)
	}
	s := d.sums
	fmt.Fprintf(d.out, "\n$ corax status        (on %s)\n%s", hub.Host.Name, table)
	fmt.Fprintf(d.out, "\nSent between domains: %d pings (mean %.2f ms), %d transfers with %d MB in all,\n",
		s.pings, float64(s.pingTime.Microseconds())/1000/float64(max(s.pings/2, 1)), s.transfers, s.bytes>>20)
	fmt.Fprintf(d.out, "every SHA-256 right, %d UDP datagrams, %d names resolved. No kernel tunnel was used.\n", s.datagrams, s.lookups)
	return nil
}

// noKernelTunnel checks what the summary says.
func (d *demo) noKernelTunnel() error {
	for _, n := range d.topo.Nodes() {
		links, err := n.Netlink().LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			switch l.Type() {
			case "vxlan", "wireguard", "gre", "ipip", "geneve", "sit", "ip6tnl":
				return fmt.Errorf("%s has a kernel tunnel %s of type %s", n.Name, l.Attrs().Name, l.Type())
			}
		}
	}
	return nil
}

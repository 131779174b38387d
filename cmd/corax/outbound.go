package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"corax/dataplane"
	"corax/dataplane/hostnet"
	"corax/dataplane/key"
	"corax/dataplane/netstack"
	"corax/proxy/outbound"
	"corax/proxy/socks"
)

// outboundProxies are the ways for programs of this node into the tunnel that need
// no route: SOCKS5, HTTP CONNECT, port maps, and the local API.
type outboundProxies struct {
	dialer *outbound.Dialer
	socks  *socks.Server
	maps   *outbound.Maps
	doors  []*door
	// source is where programs send from without a TUN, by family.
	source [2]atomic.Pointer[netip.Addr]
}

// buildOutbound makes the proxies. It comes after the Site.
func (a *agent) buildOutbound() error {
	o := &outboundProxies{}
	var network outbound.Network = hostNetwork{}
	switch {
	case a.rootless != nil:
		network = siteNetwork{a.rootless.site, o}
	case a.workload != nil:
		network = a.workload
	}
	var err error
	if o.dialer, err = outbound.NewDialer(outbound.Config{
		Log: a.log, Network: network, Reach: a.remote, Ping: a.pings(network), Pingable: key.OverlayPrefix.Contains, DNS: a.cfg.ClusterDNS,
		ServiceCIDRs: a.cfg.ServiceCIDRs, Endpoints: a.endpoints, Affinity: a.affinity, Streams: a.profile.streams,
	}); err != nil {
		return err
	}
	if o.maps, err = outbound.NewMaps(o.dialer, a.log, a.cfg.Forwards); err != nil {
		return err
	}
	if o.socks, err = socks.New(socks.Config{Log: a.log, Dialer: o.dialer, Users: a.cfg.SOCKSUsers, Conns: a.profile.streams}); err != nil {
		return err
	}
	for _, d := range []*door{
		{kind: "socks", at: a.cfg.SOCKSAddr, serve: o.socks.ServeSOCKS},
		{kind: "http-connect", at: a.cfg.HTTPProxyAddr, serve: o.socks.ServeConnect},
	} {
		if d.at.valid() {
			d.log = a.log
			o.doors = append(o.doors, d)
		}
	}
	a.outbound = o
	return nil
}

// remote reports whether an address is in a subnet that a tunnel, or another node of
// this domain, carries. Overlay addresses are the agents' own.
func (a *agent) remote(addr netip.Addr) bool {
	r, ok := a.fabric.Lookup(addr)
	return ok && (r.Via == dataplane.ViaWireGuard || r.Via == dataplane.ViaVXLAN) && !key.OverlayPrefix.Contains(addr)
}

// endpoints are what is behind the address of a Service.
func (a *agent) endpoints(network string, at netip.AddrPort) ([]netip.AddrPort, error) {
	if a.cluster == nil {
		return nil, errors.New("without a cluster nobody knows the Services")
	}
	return a.cluster.Endpoints(network, at)
}

// affinity is for how long a client is led to the same endpoint of a Service.
func (a *agent) affinity(network string, at netip.AddrPort) time.Duration {
	if a.cluster == nil {
		return 0
	}
	return a.cluster.Affinity(network, at)
}

// Run serves until ctx ends.
func (o *outboundProxies) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.maps.Run(ctx) })
	for _, d := range o.doors {
		g.Go(func() error { return d.Run(ctx) })
	}
	return g.Wait()
}

// apply tells the proxies of the plan, and returns what is in the way.
func (o *outboundProxies) apply(cfg agentConfig, own []netip.Prefix, host []netip.Prefix) []string {
	for i := range o.source {
		if s := outboundSource(i == 1, cfg.HostSources, own, host); s.IsValid() {
			o.source[i].Store(&s)
		} else {
			o.source[i].Store(nil)
		}
	}
	out := o.maps.Problems()
	for _, d := range o.doors {
		if p := d.Problem(); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// outboundSource picks the address that programs send from without a TUN. Peers
// accept from this node only what lies in its own subnets. The host's own address
// there is best, since no pod will ever have it; else it is the first of a subnet,
// which CNI plugins give to their bridge.
func outboundSource(v6 bool, override []netip.Addr, own, host []netip.Prefix) netip.Addr {
	fits := func(a netip.Addr) bool {
		return a.Is6() == v6 && slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for _, a := range override {
		if fits(a) {
			return a
		}
	}
	for _, p := range host {
		if fits(p.Addr()) && p.Addr() != p.Masked().Addr() {
			return p.Addr()
		}
	}
	for _, p := range own {
		if p.Addr().Is6() != v6 {
			continue
		}
		if p.IsSingleIP() {
			return p.Addr()
		}
		return p.Masked().Addr().Next()
	}
	return netip.Addr{}
}

func (o *outboundProxies) counters() []dataplane.Counter {
	return slices.Concat(o.dialer.Counters(), o.socks.Counters(), o.maps.Counters())
}

// applyOutbound gathers what the proxies must know of this host.
func (a *agent) applyOutbound(c dataplane.Config) []string {
	prefixes, _ := hostnet.Prefixes(a.cfg.TUNName) // local has reported the error
	return a.outbound.apply(a.cfg, c.Self.Subnets, prefixes)
}

// siteNetwork is the way into the tunnel without a TUN.
type siteNetwork struct {
	site *netstack.Site
	o    *outboundProxies
}

var errNoSource = errors.New("this node has no subnet of that family to send from")

func (n siteNetwork) from(v6 bool) (netip.Addr, error) {
	i := 0
	if v6 {
		i = 1
	}
	if a := n.o.source[i].Load(); a != nil {
		return *a, nil
	}
	return netip.Addr{}, errNoSource
}

// DialTCP implements [outbound.Network].
func (n siteNetwork) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	from, err := n.from(to.Addr().Is6())
	if err != nil {
		return nil, err
	}
	return n.site.DialTCP(ctx, from, to)
}

// DialUDP implements [outbound.Network].
func (n siteNetwork) DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	from, err := n.from(to.Addr().Is6())
	if err != nil {
		return nil, err
	}
	return n.site.DialUDP(ctx, from, to)
}

// ListenUDP implements [outbound.Network].
func (n siteNetwork) ListenUDP(v6 bool) (net.PacketConn, error) {
	from, err := n.from(v6)
	if err != nil {
		return nil, err
	}
	return n.site.ListenUDP(from)
}

// hostNetwork is the kernel, whose routes lead into the TUN.
type hostNetwork struct{}

// DialTCP implements [outbound.Network].
func (hostNetwork) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to.String())
}

// DialUDP implements [outbound.Network].
func (hostNetwork) DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "udp", to.String())
}

// ListenUDP implements [outbound.Network].
func (hostNetwork) ListenUDP(v6 bool) (net.PacketConn, error) {
	network := "udp4"
	if v6 {
		network = "udp6"
	}
	return net.ListenPacket(network, "")
}

// doorAt is where a proxy listens: on loopback, or on a unix socket.
type doorAt struct {
	addr netip.AddrPort
	path string
}

func (d doorAt) valid() bool { return d.addr.IsValid() || d.path != "" }

// String returns the address as status shows it.
func (d doorAt) String() string {
	if d.path != "" {
		return "unix:" + d.path
	}
	return d.addr.String()
}

func (d doorAt) listen() (net.Listener, error) {
	if d.path != "" {
		return listenSocket(d.path)
	}
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(d.addr))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", d.addr, err)
	}
	return ln, nil
}

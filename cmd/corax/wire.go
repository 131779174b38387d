package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"corax/control"
	"corax/control/hello"
	"corax/dataplane"
	"corax/dataplane/fabric"
	"corax/dataplane/hostnet"
	"corax/dataplane/key"
	"corax/dataplane/netstack"
	"corax/dataplane/vxlan"
	"corax/proxy"
)

// agent is one running agent: the parts that live as long as it does, and the
// control loop, which owns everything that comes and goes with the plan. This
// file builds it; it is the only one that sees every room.
type agent struct {
	cfg     agentConfig
	profile profile
	log     *slog.Logger
	private key.Private
	public  key.Public
	started time.Time

	datapath       datapath // tun, userns or netstack: what was chosen
	datapathReason string

	fabric   *fabric.Fabric
	vxlan    *vxlan.Endpoint
	stack    *netstack.Stack
	tun      *hostnet.TUN  // nil without a TUN
	host     *hostnet.Host // nil where we have nothing to do with the host
	workload *workload     // nil where the TUN is in this network namespace, or nowhere
	rootless *rootless     // nil with a TUN
	outbound *outboundProxies
	left     string // what a dead agent left and we could not remove

	cluster  cluster // nil: the Gateway objects come from a directory
	resolver *resolver
	live     *liveness
	hello    *helloPort
	domain   *domainTalk
	proxy    *proxyMode
	book     claimBook
	keys     heardKeys
	traffic  traffic
	inbox    inbox
	loop     loop
	// states are the peers of the tunnel, by key, as they were within the last
	// second; nil: the tunnel port is closed. Asking costs time for each of them.
	states atomic.Pointer[[]dataplane.PeerStatus]

	// allow is whom a hub serves; nil: everybody.
	allow atomic.Pointer[dataplane.AllowTable]

	// view is what the control loop shows to everybody else.
	view atomic.Pointer[view]
}

// runAgent runs the agent until ctx ends. It returns nil when it was stopped in
// order, and then the host is as it was before. After an error the TUN and the
// routes stay, so that no packet leaves in the clear.
func runAgent(ctx context.Context, cfg agentConfig, p profile, log *slog.Logger) error {
	private, created, err := key.LoadOrCreate(cfg.StateDir)
	if err != nil {
		return err
	}
	a := &agent{
		cfg:     cfg,
		profile: p,
		log:     log,
		private: private,
		public:  private.Public(),
		started: time.Now(),
		inbox:   newInbox(),
		fabric:  fabric.New(fabric.Config{Log: log}),
	}
	log.Info("agent starts", "version", versionText(), "node", cfg.NodeName, "publicKey", a.public, "overlay", a.public.Overlay(), "newKey", created)
	a.view.Store(&view{})

	// Whatever can fail comes before the TUN: an agent that cannot start leaves
	// alone what a dead predecessor left to keep packets in.
	source, err := a.newSource()
	if err != nil {
		return err
	}
	api, err := newLocal(cfg, agentAPI{
		Status: a.status, Ping: a.pingTarget, Paths: a.paths, Netcheck: a.netcheck, Ready: a.ready, Counters: a.counters,
		Forwards: a.forwards, AddForward: a.addForward, RemoveForward: a.removeForward, Connect: a.connect,
		Streams: a.streams, Probe: a.probe, Proxied: func() proxy.Counts { return a.proxy.counters.Snapshot() },
	}, log)
	if err != nil {
		return err
	}
	defer api.Close()
	if err := a.buildHost(); err != nil {
		return err
	}
	if err := a.buildSegment(); err != nil {
		return err
	}
	defer a.vxlan.Close()
	a.resolver = newResolver(a.inbox.poke)
	a.live = newLiveness(a.pingOnce, a.targets)
	a.live.rounded = a.inbox.round
	if err := a.buildDomain(); err != nil {
		return err
	}
	if err := a.buildProxy(); err != nil {
		return err
	}
	a.loop = newLoop(cfg.StateDir, log)
	if err := a.buildTUN(); err != nil {
		return err
	}
	if err := a.buildSite(); err != nil {
		return err
	}
	if err := a.buildOutbound(); err != nil {
		return err
	}

	stopping := ctx
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.drain(ctx, stopping, stop) })
	g.Go(func() error { return a.vxlan.Run(ctx) })
	g.Go(func() error { return a.stack.Run(ctx) })
	if a.tun != nil {
		g.Go(func() error { return a.tun.Run(ctx) })
	}
	switch {
	case a.workload != nil:
		g.Go(func() error { return a.runWorkload(ctx) })
	case a.tun != nil:
		g.Go(func() error { return a.host.Watch(ctx, a.inbox.poke) })
	}
	if a.rootless != nil {
		g.Go(func() error { return a.rootless.site.Run(ctx) })
	}
	g.Go(func() error { return a.outbound.Run(ctx) })
	g.Go(func() error { return hostnet.WatchNetwork(ctx, cfg.TUNName, a.networkChanged) })
	g.Go(func() error { return a.resolver.Run(ctx) })
	g.Go(func() error { return a.live.Run(ctx) })
	g.Go(func() error { return shrink(ctx, a.profile.shrink) })
	g.Go(func() error { return batchWhileBusy(ctx, log) })
	g.Go(func() error { return a.hello.Run(ctx) })
	g.Go(func() error { return a.domain.Run(ctx) })
	g.Go(func() error { return a.proxy.front.Run(ctx) })
	g.Go(func() error { return source.Run(ctx) })
	g.Go(func() error { return api.Run(ctx) })
	g.Go(func() error { return a.control(ctx) })
	err = g.Wait()
	log.Info("agent stops", "err", err)
	switch {
	case err == nil:
		a.closeHost()
	case errors.Is(err, errNewKey) && a.tun != nil:
		err = errors.Join(err, a.tun.Close())
	}
	if a.workload != nil {
		a.workload.Leave()
	}
	return err
}

// drainAtMost bounds how long a tunnel that does not answer delays the end.
const drainAtMost = 3 * time.Second

// drain waits until the agent is to stop, lets those whom it relays go another
// way, and then stops the rest.
func (a *agent) drain(ctx, stopping context.Context, stop func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-stopping.Done():
	}
	if v := a.view.Load(); v.tunnel != nil {
		ctx, cancel := context.WithTimeout(ctx, drainAtMost)
		v.tunnel.nat.Drain(ctx)
		cancel()
	}
	stop()
	return nil
}

// buildSegment opens the VXLAN endpoint and the stack that sits on its segment.
func (a *agent) buildSegment() error {
	var err error
	a.vxlan, err = vxlan.New(vxlan.Config{
		Log:     a.log,
		Addr:    a.cfg.NodeIP,
		Port:    a.cfg.VXLANPort,
		VNI:     vxlan.VNI(a.cfg.VNI),
		Overlay: a.public.Overlay(),
		Receive: a.fabric.From(fabric.FromVXLAN),

		SocketBuffer: a.profile.socketBuffer,
		Slots:        a.profile.slots,
	})
	if err != nil {
		return err
	}
	a.stack, err = netstack.New(netstack.Config{
		Log:         a.log,
		Overlay:     a.public.Overlay(),
		MTU:         dataplane.PathMTU,
		Send:        a.fabric.From(fabric.FromNetstack),
		Segment:     a.vxlan.Link(),
		SegmentAddr: vxlan.SegmentPrefix(a.cfg.NodeIP),
		Buffers:     a.profile.buffers,
	})
	if err != nil {
		_ = a.vxlan.Close()
	}
	return err
}

// buildDomain opens the hello port, which nodes of this domain use on every node.
func (a *agent) buildDomain() error {
	codec, err := hello.NewDomainCodec()
	if err != nil {
		return err
	}
	conn, err := a.stack.ListenUDP(hello.Port)
	if err != nil {
		return fmt.Errorf("open the hello port: %w", err)
	}
	a.hello = &helloPort{conn: conn, codec: codec}
	a.domain = &domainTalk{
		say: a.hello.say, urgent: a.urgent, changed: a.inbox.poke, now: time.Now,
		heard: a.heardKey, told: map[key.Public]told{}, asking: map[netip.Addr]time.Time{},
	}
	a.hello.take = a.domain.take
	a.book.changed = a.inbox.poke
	return nil
}

// buildHost looks for a Raven agent, and takes over from it when told to. It
// comes before the segment, because a living raven0 holds the VXLAN port.
func (a *agent) buildHost() error {
	var err error
	a.host, err = hostnet.New(hostnet.Config{
		Log:        a.log,
		Name:       a.cfg.TUNName,
		TakeOver:   a.cfg.TakeOver,
		HostSource: a.cfg.HostSources,
	})
	if err != nil && a.withoutHost(err) {
		return nil
	}
	return err
}

// buildTUN opens the TUN, or attaches to the one that a predecessor left. Without
// a usable TUN sockets stand in for it.
func (a *agent) buildTUN() error {
	if a.cfg.Datapath == datapathUserns {
		return a.buildWorkload()
	}
	if a.host == nil {
		return nil
	}
	if a.cfg.Datapath == datapathNetstack {
		a.datapath, a.datapathReason = datapathNetstack, "asked for with --datapath netstack"
		a.clearHost()
		return nil
	}
	tun, err := hostnet.OpenTUN(hostnet.TUNConfig{
		Log:     a.log,
		Name:    a.cfg.TUNName,
		MTU:     dataplane.DefaultMTU,
		Receive: a.fabric.From(fabric.FromTUN),
	})
	switch {
	case err == nil:
		a.datapath, a.datapathReason = datapathTUN, "a TUN works in this network namespace"
		a.tun = tun
	case a.cfg.Datapath == datapathTUN:
		return err
	default:
		a.datapath, a.datapathReason = datapathNetstack, err.Error()
		a.log.Warn("no TUN: sockets stand in for it, and programs of this node need a proxy", "err", err)
	}
	return nil
}

// closeHost takes everything of ours off the host. From then on packets for other
// domains go where the kernel's own routes lead: an agent that is stopped in
// order says that its job is over, unlike one that was killed.
func (a *agent) closeHost() {
	if a.tun == nil {
		a.letGo()
		return
	}
	if a.workload != nil {
		if err := a.workload.close(a.tun); err != nil {
			a.log.Error("the network namespace keeps something of ours", "err", err)
		}
		return
	}
	if err := a.host.Close(); err != nil {
		a.log.Error("the host keeps something of ours", "err", err)
	}
	if err := a.tun.Remove(); err != nil {
		a.log.Error("the TUN stays", "err", err)
	}
}

// local gathers what the plan must know of this host.
func (a *agent) local() (control.Local, []string) {
	var problems []string
	mtu, err := hostnet.LinkMTU(a.cfg.NodeIP)
	if err != nil {
		problems = append(problems, err.Error()+" (1500 is assumed)")
	}
	prefixes, err := a.routed()
	if err != nil {
		problems = append(problems, err.Error())
	}
	return control.Local{
		Node:       a.cfg.NodeName,
		NodeIP:     a.cfg.NodeIP,
		PublicKey:  a.public,
		Preshared:  a.cfg.Preshared,
		LinkMTU:    mtu,
		Prefixes:   prefixes,
		APIServer:  a.apiServer(),
		TunnelPort: a.cfg.TunnelPort,
	}, problems
}

// networkChanged tells whoever rests on the addresses and routes of this host.
func (a *agent) networkChanged() {
	if v := a.view.Load(); v.tunnel != nil {
		v.tunnel.nat.NetworkChanged("the addresses or the default route of this host changed")
	}
	a.inbox.poke()
}

// outputs are the ways out of the fabric that exist now.
func (a *agent) outputs(tunnel *tunnel) fabric.Outputs {
	out := fabric.Outputs{VXLAN: a.vxlan, Netstack: a.stack}
	if tunnel != nil {
		out.WireGuard = tunnel
	}
	switch {
	case a.tun != nil:
		out.TUN = a.tun
	case a.rootless != nil:
		out.TUN = a.rootless.site
	}
	return out
}

// applyHost brings the host to the plan, and returns what is in the way.
func (a *agent) applyHost(ctx context.Context, c dataplane.Config) []string {
	if a.tun == nil {
		return append(a.applySite(c), a.holdHost(ctx, c)...)
	}
	var out []string
	var problems []hostnet.Problem
	var err error
	if a.workload != nil {
		if a.left != "" {
			out = append(out, a.left)
		}
		problems, err = a.workload.apply(ctx, a.cfg.Netns, a.hostState(c))
	} else {
		problems, err = a.host.Apply(ctx, a.hostState(c))
	}
	for _, p := range problems {
		out = append(out, p.String())
	}
	if err != nil {
		out = append(out, err.Error())
	}
	return out
}

// pingOnce is one echo request to an overlay address.
func (a *agent) pingOnce(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	return a.stack.Ping(ctx, addr, pingSize)
}

// counters gathers the counters of every part.
func (a *agent) counters() []dataplane.Counter {
	all := append(a.fabric.Counters(), a.vxlan.Counters()...)
	all = append(all, a.stack.Counters()...)
	all = append(all, a.hello.counters()...)
	all = append(all, a.failoverCounters()...)
	all = append(all, a.proxyCounters()...)
	if a.tun != nil {
		all = append(all, a.tun.Counters()...)
	}
	if a.rootless != nil {
		all = append(all, a.rootless.counters()...)
	}
	all = append(all, a.outbound.counters()...)
	all = append(all, a.clusterCounters()...)
	if v := a.view.Load(); v.tunnel != nil {
		all = append(all, v.tunnel.Counters()...)
		for _, c := range v.tunnel.nat.Counters() {
			all = append(all, dataplane.Counter(c))
		}
	}
	return all
}

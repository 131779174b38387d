package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net/netip"
	"slices"
	"time"

	"corax/control"
	"corax/dataplane"
	"corax/proxy"
	"corax/proxy/channel"
	"corax/proxy/edge"
	"corax/proxy/front"
	"corax/proxy/splice"
)

// proxyMode is proxy mode on this node: what lives as long as the agent, and what
// comes and goes with the plan. The control loop owns the latter.
type proxyMode struct {
	live     *proxy.Live
	counters *proxy.Counters
	pool     *splice.Pool
	channel  *channel.Channel
	front    *front.Front // listens while this node is a front

	names   func(host string) (node string, ok bool) // Hostname addresses; nil: none are known
	nodeCAs func() *x509.CertPool                    // that verify nodes; nil: none

	// What the front reads of files; nil: nothing.
	kubeletCA, connectCA *pemFiles[*x509.CertPool]
	connectCert          *pemFiles[*tls.Certificate]

	edge *running[*edge.Server] // nil while this node serves no streams
}

// buildProxy makes what fronts and edge share. It needs the stack.
func (a *agent) buildProxy() error {
	p := &proxyMode{live: proxy.NewLive(streamLimits(a.profile)), counters: new(proxy.Counters), pool: new(splice.Pool)}
	var err error
	p.channel, err = channel.New(channel.Config{Overlay: a.stack.DialTCP, Heard: a.lastFrom, Counters: p.counters})
	a.proxy = p
	if err != nil {
		return err
	}
	return a.buildFront()
}

// applyProxy brings proxy mode to the plan, and returns what is in the way. Open
// streams stay as long as what serves them does.
func (a *agent) applyProxy(ctx context.Context, plan control.Proxy, peers []dataplane.Peer) []string {
	var problems []string
	for _, p := range plan.Problems {
		problems = append(problems, p.String())
	}
	a.proxy.channel.Apply(plan.Nodes)
	listed := make(map[netip.Addr]string, len(peers))
	for i := range peers {
		listed[peers[i].PublicKey.Overlay()] = peers[i].Node
	}
	a.proxy.channel.Reach(slices.Collect(maps.Keys(listed)))
	problems = append(problems, a.applyFront(plan)...)
	if err := a.applyEdge(ctx, plan, listed); err != nil {
		a.loop.retry = true
		problems = append(problems, err.Error())
	}
	return problems
}

// lastFrom returns when anything came last from the peer with an overlay address.
func (a *agent) lastFrom(from netip.Addr) time.Time {
	v := a.view.Load()
	if v.tunnel == nil {
		return time.Time{}
	}
	for _, s := range v.tunnel.Status() {
		if s.PublicKey.Overlay() == from {
			return latest(latest(s.LastReceive, s.LastHandshake), s.Proven)
		}
	}
	return time.Time{}
}

// applyEdge opens or closes the port for streams of the overlay.
func (a *agent) applyEdge(ctx context.Context, plan control.Proxy, listed map[netip.Addr]string) error {
	p := a.proxy
	if p.edge.dead() {
		a.log.Error("the edge stopped, it is started again", "err", p.edge.stop())
		p.edge = nil
	}
	if !plan.Edge {
		a.stopEdge()
		return nil
	}
	if p.edge == nil {
		l, err := a.stack.ListenTCP(proxy.OverlayPort)
		if err != nil {
			return err
		}
		s, err := edge.New(edge.Config{Log: a.log, Listener: l, Live: p.live, Counters: p.counters, Pool: p.pool})
		if err != nil {
			_ = l.Close()
			return err
		}
		s.Apply(plan, listed)
		p.edge = start(ctx, s, s.Run)
		a.log.Info("streams to the nodes of this domain are served", "gateway", a.view.Load().plan.Gateway)
		return nil
	}
	p.edge.value().Apply(plan, listed)
	return nil
}

// stopEdge breaks off the streams that are served, and closes their port.
func (a *agent) stopEdge() {
	if a.proxy.edge != nil {
		_ = a.proxy.edge.stop()
		a.proxy.edge = nil
		a.log.Info("no streams are served any more")
	}
}

// proxyCounters are the counters of proxy mode that have a reason or nothing
// beside their name.
func (a *agent) proxyCounters() []dataplane.Counter {
	c := a.proxy.counters.Snapshot()
	out := []dataplane.Counter{
		{Name: "proxy_streams", Value: uint64(a.proxy.live.Len())},
		{Name: "proxy_stalls_total", Value: c.Stalls},
		{Name: "proxy_memory_bytes", Value: uint64(a.proxy.live.Memory())},
	}
	for _, e := range proxy.Ends() {
		out = append(out, dataplane.Counter{Name: "proxy_ended_total", Reason: string(e), Value: c.Ended[e]})
	}
	for _, code := range proxy.Codes() {
		out = append(out, dataplane.Counter{Name: "proxy_refused_total", Reason: code.String(), Value: c.Refused[code]})
	}
	return out
}

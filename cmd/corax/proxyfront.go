package main

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	"corax/control"
	"corax/proxy/channel"
	"corax/proxy/front"
)

// frontKubelet is the port for kubelets by which the port map calls it (where it
// really is, --proxy-tls-addr says), and portKubelet that of kubelets.
const frontKubelet, portKubelet = 10281, 10250

// buildFront makes the front, which listens nowhere until the plan says so. It
// needs the channel.
func (a *agent) buildFront() error {
	p, f := a.proxy, &a.cfg.Front
	cfg := front.Config{
		Log: a.log, Dialer: p.channel, Live: p.live, Counters: p.counters, Pool: p.pool, Via: reachedOver,
		Unnamed: a.cfg.Preset == presetOpenYurt,
	}
	if a.cluster != nil {
		a.cluster.Fronting(&cfg)
	}
	if f.KubeletCA != "" {
		p.kubeletCA = newPool(f.KubeletCA)
		cfg.NodeCAs = p.kubeletCA.value
	}
	if f.connects() {
		p.connectCert, p.connectCA = newPair(f.ConnectCert, f.ConnectKey), newPool(f.ConnectClientCA)
		cfg.Connect = front.ConnectTLS{Certificate: p.connectCert.get, ClientCAs: p.connectCA.value, Names: f.ConnectNames}
	}
	cfg.Connect.Cluster = f.ConnectCluster
	p.names, p.nodeCAs = cfg.Names, cfg.NodeCAs
	var err error
	p.front, err = front.New(cfg)
	return err
}

// reachedOver is the overlay address by which the channel reached a node; empty: it was
// dialled plainly.
func reachedOver(c net.Conn) string {
	if c, ok := c.(*channel.Conn); ok && c.Via.IsValid() {
		return c.Via.String()
	}
	return ""
}

// applyFront brings the front to the plan, and returns what is in the way.
func (a *agent) applyFront(plan control.Proxy) []string {
	p := a.proxy
	if was := a.view.Load().proxy.Front; was != plan.Front {
		a.log.Info("front of the proxy", "on", plan.Front)
	}
	if a.cluster != nil {
		a.cluster.Front(plan.Front)
	}
	p.front.Apply(frontPlan(&a.cfg, plan))
	if !plan.Front {
		return nil
	}
	var problems []string
	for _, file := range []interface{ problem() error }{p.kubeletCA, p.connectCert, p.connectCA} {
		if err := file.problem(); err != nil {
			problems = append(problems, "proxy: "+err.Error())
		}
	}
	for _, l := range p.front.Listeners() {
		if l.Err != nil {
			// It tries again by itself.
			problems = append(problems, "proxy: "+l.Front+" at "+l.Addr+": "+l.Err.Error())
		}
	}
	return problems
}

// frontPlan turns the plan of proxy mode into what the front listens at and serves.
func frontPlan(cfg *agentConfig, plan control.Proxy) front.Plan {
	out := front.Plan{
		// Without nodes proxy mode is off, and streams that are open end. A node that
		// only stopped being a front lets them go on.
		End: len(plan.Nodes) == 0,
	}
	if !plan.Front {
		return out
	}
	for _, n := range plan.Nodes {
		out.Nodes = append(out.Nodes, front.Node{Name: n.Name, IP: n.IP, Ports: n.Ports, PlainPorts: n.HTTP, TLSPorts: n.HTTPS})
	}
	out.TLS = tlsListeners(cfg, plan.PortMap)
	if cfg.ProxyHTTPAddr.IsValid() {
		out.HTTP = []netip.AddrPort{cfg.ProxyHTTPAddr}
	}
	if cfg.Front.connects() {
		out.Connect = []netip.AddrPort{cfg.Front.ConnectAddr}
	}
	out.ConnectSocket = cfg.Front.ConnectSocket
	return out
}

// tlsListeners are the ports for TLS: that for kubelets is where the operator wants
// it, the others are on the same address.
func tlsListeners(cfg *agentConfig, ports map[uint16]uint16) []front.TLSListener {
	at := cfg.ProxyTLSAddr
	if !at.IsValid() {
		return nil
	}
	list := []front.TLSListener{{Addr: at, Port: portKubelet}}
	for _, listen := range slices.Sorted(maps.Keys(ports)) {
		switch {
		case listen == frontKubelet:
			list[0].Port = ports[listen]
		case listen != at.Port():
			list = append(list, front.TLSListener{Addr: netip.AddrPortFrom(at.Addr(), listen), Port: ports[listen]})
		}
	}
	return list
}

// frontReady says what of a front does not listen.
func (a *agent) frontReady(v *view) []string {
	if !v.proxy.Front {
		return nil
	}
	var why []string
	for _, l := range a.proxy.front.Listeners() {
		if l.Err != nil {
			why = append(why, "proxy: "+l.Front+" at "+l.Addr+" does not listen: "+l.Err.Error())
		}
	}
	return why
}

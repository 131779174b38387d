package main

import (
	"slices"

	"corax/dataplane"
	"corax/dataplane/fabric"
	"corax/dataplane/netstack"
	"corax/proxy/forward"
)

// rootless is what stands in for the TUN.
type rootless struct {
	site    *netstack.Site
	forward *forward.Forwarder
}

// buildSite makes what carries this node's own subnets without a TUN; with one there
// is nothing to make.
func (a *agent) buildSite() error {
	if a.tun != nil {
		return nil
	}
	f, err := forward.New(forward.Config{
		Log: a.log, Expose: a.cfg.Expose, ProxyProtocol: a.cfg.ProxyProtocol, Limits: a.profile.limits,
	})
	if err != nil {
		return err
	}
	site, err := netstack.NewSite(netstack.SiteConfig{
		Log: a.log, MTU: dataplane.PathMTU, Send: a.fabric.From(fabric.FromTUN), Handler: f,
		Attempts: a.profile.attempts, Buffers: a.profile.buffers,
	})
	if err != nil {
		return err
	}
	a.rootless = &rootless{site: site, forward: f}
	return nil
}

// applySite tells what stands in for the TUN of the plan, and returns what it cannot
// do.
func (a *agent) applySite(c dataplane.Config) []string {
	r := a.rootless
	if r == nil {
		return nil
	}
	r.forward.SetSubnets(slices.Clone(c.Self.Subnets))
	if len(c.Self.Subnets) == 0 {
		return nil
	}
	out := r.forward.Problems()
	if a.cfg.Datapath != datapathNetstack {
		out = append(out, "programs of this node reach other domains only through the agent's proxies: "+a.datapathReason)
	}
	return out
}

func (r *rootless) counters() []dataplane.Counter {
	return append(r.site.Counters(), r.forward.Counters()...)
}

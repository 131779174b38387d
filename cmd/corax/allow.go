package main

import (
	"net/netip"

	"corax/dataplane"
)

// applyAllow tells the sockets of a hub whom they serve.
func (a *agent) applyAllow(want *dataplane.Allow) {
	table := want.Table(a.published(want)...)
	old := a.allow.Load()
	if table.Equal(old) {
		return
	}
	a.allow.Store(table)
	if t := a.loop.tunnel.value(); t != nil {
		t.SetAllow(table)
	}
	switch {
	case table == nil:
		a.log.Info("no allow list is in force any more")
	default:
		a.log.Info("an allow list is in force", "sources", len(want.Sources), "always", len(want.Always), "names", len(want.Hosts))
	}
}

// maxNamed is how many addresses of one name an allow list lets in. The owner of a
// hub's name could otherwise open the list to everybody.
const maxNamed = 8

// published are the addresses of the names in an allow list, as far as they are
// known.
func (a *agent) published(want *dataplane.Allow) []netip.Addr {
	if want == nil {
		return nil
	}
	var out []netip.Addr
	for _, h := range want.Hosts {
		all := a.resolver.Addrs(h)
		out = append(out, all[:min(len(all), maxNamed)]...)
	}
	return out
}

// allowed reports whether an address may speak to the tunnel port and the TLS
// fallback.
func (a *agent) allowed(x netip.Addr) bool { return a.allow.Load().Contains(x) }

// allowSources is what status shows of the allow list.
func allowSources(c dataplane.Config) []netip.Prefix {
	if c.Allow == nil {
		return nil
	}
	return c.Allow.Sources
}

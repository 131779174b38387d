package control

import (
	"net/netip"
	"slices"
	"sort"

	"corax/dataplane"
)

// planAllow turns the allow list into what this node's sockets must know, when
// it is a hub. An edge is sent to by whom it has called, and needs none.
func (p *planner) planAllow(s Snapshot) {
	if len(s.AllowSources) == 0 && !s.AllowClosed || !p.cfg.Self.Hub {
		return
	}
	a := &dataplane.Allow{
		Sources: sortPrefixes(slices.Clone(s.AllowSources)),
		Always:  []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
	add := func(x netip.Addr) {
		if x = x.Unmap().WithZone(""); x.IsValid() {
			a.Always = append(a.Always, host(x))
		}
	}
	add(p.cfg.Self.NodeIP)
	for _, l := range p.local.Prefixes {
		add(l.Addr())
	}
	for _, n := range p.domain.nodes {
		add(n.addr)
	}
	for _, d := range p.mesh.domains {
		if !d.gw.Exposed() {
			continue
		}
		for _, e := range d.members {
			add(e.reach.public.Addr())
			if e.reach.host != "" {
				a.Hosts = append(a.Hosts, e.reach.host)
			}
		}
	}
	a.Always = sortPrefixes(a.Always)
	slices.Sort(a.Hosts)
	a.Hosts = slices.Compact(a.Hosts)
	p.cfg.Allow = a
}

func sortPrefixes(ps []netip.Prefix) []netip.Prefix {
	sort.Slice(ps, func(i, j int) bool { return ps[i].Compare(ps[j]) < 0 })
	return slices.Compact(ps)
}

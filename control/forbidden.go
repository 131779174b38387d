package control

import (
	"maps"
	"net/netip"
	"sort"

	"corax/dataplane/key"
)

// planForbidden lists what is never probed: overlay addresses and those of pods.
func (p *planner) planForbidden() {
	spared := p.spared()
	all := []netip.Prefix{key.OverlayPrefix}
	for _, c := range p.mesh.claims.sorted {
		if !spared[c.prefix] {
			all = append(all, c.prefix)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Compare(all[j]) < 0 })
	p.cfg.Forbidden = all
}

// spared returns the subnets that may be probed: those that are refused here,
// and of those that the kernel routes the ones that hold the address of a node
// of their domain or of a peer, as where pods share the network of the nodes.
func (p *planner) spared() map[netip.Prefix]bool {
	spared := maps.Clone(p.refused)
	for _, d := range p.mesh.domains {
		if d != p.domain && !d.routed {
			continue
		}
		for _, n := range d.nodes {
			for _, c := range p.mesh.claims.overlapping(host(n.addr)) {
				if c.domain == d {
					spared[c.prefix] = true
				}
			}
		}
	}
	for i := range p.cfg.Peers {
		if a := p.cfg.Peers[i].Endpoint.Addr(); a.IsValid() {
			for _, c := range p.mesh.claims.overlapping(host(a)) {
				spared[c.prefix] = true
			}
		}
	}
	return spared
}

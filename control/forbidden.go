package control

import (
	"net/netip"
	"slices"

	"corax/dataplane/key"
)

// planForbidden lists what is never probed: overlay addresses and those of pods,
// which packets reach only through the tunnel or without anybody's wish. A
// subnet that is not installed here does not count when it holds addresses of
// this host or of nodes, as where pods share the network of the nodes.
func (p *planner) planForbidden() {
	all := []netip.Prefix{key.OverlayPrefix}
	for _, c := range p.mesh.claims.sorted {
		if !p.refused[c.prefix] && !p.sharedWithNodes(c) {
			all = append(all, c.prefix)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	p.cfg.Forbidden = all
}

// sharedWithNodes reports whether the kernel routes the subnet and nodes of its
// domain have addresses in it.
func (p *planner) sharedWithNodes(c claim) bool {
	if c.domain != p.domain && !c.domain.routed {
		return false
	}
	return slices.ContainsFunc(c.domain.nodes, func(n *node) bool { return c.prefix.Contains(n.addr) })
}

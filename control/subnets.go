package control

import (
	"net/netip"
	"slices"

	"corax/dataplane/key"
)

// planSubnets decides which subnets of other domains this node installs, and
// gives each to the peer that owns it.
func (p *planner) planSubnets() {
	if !p.on {
		return
	}
	peers := map[key.Public]int{}
	for i := range p.cfg.Peers {
		peers[p.cfg.Peers[i].PublicKey] = i
	}
	p.remote = slices.Grow(p.remote, len(p.mesh.claims.sorted))
	for _, c := range p.mesh.claims.sorted {
		if c.domain == p.domain || c.domain.routed || p.refused[c.prefix] {
			continue
		}
		r := remote{claim: c}
		if name := c.domain.owner(c.node); name != "" {
			r.owner = c.domain.carriers[name]
		}
		if r.owner != nil && p.member != nil {
			i, ok := peers[r.owner.key]
			if !ok {
				r.owner = nil // it shows our own key: reported with the peers
			} else {
				// The claims are sorted, and so are the allowed IPs after the
				// overlay address.
				p.cfg.Peers[i].AllowedIPs = append(p.cfg.Peers[i].AllowedIPs, c.prefix)
			}
		}
		p.remote = append(p.remote, r)
	}
}

// remotePrefixes returns the installed subnets, sorted.
func (p *planner) remotePrefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, r := range p.remote {
		all = append(all, r.prefix)
	}
	return all
}

package nat

import (
	"net/netip"
	"slices"
	"sort"

	"corax/nat/path"
	"corax/nat/stun"
)

// refreshLocal works out our own end anew, and gives it to everybody when it is
// another.
func (a *Agent) refreshLocal() {
	l := path.Local{Hub: a.plan.Self.Hub, Forbidden: a.plan.Forbidden, NAT: a.natOf()}
	add := func(kind path.CandidateKind, addr netip.AddrPort) {
		if len(l.Candidates) < maxCandidates && addr.IsValid() &&
			!slices.ContainsFunc(l.Candidates, func(c path.Candidate) bool { return c.Addr == addr }) {
			l.Candidates = append(l.Candidates, path.Candidate{Kind: kind, Addr: addr})
		}
	}
	prefixes := a.cfg.Prefixes()
	sort.Slice(prefixes, func(i, j int) bool { return prefixes[i].Compare(prefixes[j]) < 0 })
	for _, p := range prefixes {
		addr := p.Addr().Unmap()
		if !addr.IsValid() || addr.IsLoopback() {
			continue
		}
		l.Own = append(l.Own, addr)
		if !usable(addr) || a.forbidden(addr) {
			continue
		}
		l.Connected = append(l.Connected, p.Masked())
		add(path.Host, netip.AddrPortFrom(addr, a.cfg.Port))
	}
	for _, s := range a.discovery.public {
		add(path.ServerReflexive, s)
	}
	if m, _, ok := a.mapper.Mapping(); ok {
		add(path.PortMapped, m)
	}
	if m, ok := a.mapper.Pinhole(); ok {
		add(path.PortMapped, m)
	}
	a.mapper.Want(!l.Hub && l.NAT.Mapping != path.MappingNone && len(a.servers()) > 0)
	if slices.Equal(l.Candidates, a.local.Candidates) && l.NAT == a.local.NAT && l.Hub == a.local.Hub &&
		slices.Equal(l.Own, a.local.Own) && slices.Equal(l.Connected, a.local.Connected) &&
		slices.Equal(l.Forbidden, a.local.Forbidden) {
		return
	}
	a.local = l
	for _, p := range a.peers {
		a.step(p, path.LocalChanged{Local: l})
		if p.introduced {
			a.introduce(p)
		}
	}
}

const maxCandidates = 32 // of ours

// usable reports whether an address of ours may mean us to somebody else.
func usable(a netip.Addr) bool {
	return !a.IsLoopback() && !a.IsMulticast() && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && a.Zone() == ""
}

func (a *Agent) forbidden(addr netip.Addr) bool {
	return slices.ContainsFunc(a.plan.Forbidden, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// natOf is what is known of the NATs before us.
func (a *Agent) natOf() path.NAT {
	r := &a.discovery.nat
	return path.NAT{
		Mapping: uint8(r.Mapping), Filtering: uint8(r.Filtering), PortStep: r.PortStep,
		Lifetime: r.Lifetime, Blocked: r.Blocked,
	}
}

// adopt takes what a discovery knows by now. What it does not know yet, or
// cannot know since only one server answered, is kept from before.
func (d *discovery) adopt(r stun.Report, ready bool) {
	nat := r.Family
	switch {
	case nat.Blocked && !ready:
		return
	case nat.Blocked:
		d.nat, d.public = nat, nil
		return
	}
	old := d.nat
	if nat.Mapping == stun.MappingUnknown || !ready && nat.Mapping >= stun.MappingAddressDependent {
		nat.Mapping, nat.PortStep = old.Mapping, old.PortStep
	}
	if nat.Mapping == old.Mapping {
		if nat.PortStep == 0 {
			nat.PortStep = old.PortStep
		}
		if nat.Filtering == stun.FilteringUnknown {
			nat.Filtering = old.Filtering
		}
		if nat.Lifetime == 0 {
			nat.Lifetime = old.Lifetime
		}
	}
	if len(nat.Public) > 0 {
		d.public = slices.Clone(nat.Public)
		if nat.Mapping >= stun.MappingAddressDependent {
			d.public = d.public[:1] // the others are other mappings of one NAT
			for _, p := range nat.Public {
				if p.Addr() != d.public[0].Addr() {
					d.public = append(d.public, p)
				}
			}
		}
		d.nat = nat
	}
}

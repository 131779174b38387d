package control

import (
	"bytes"
	"net/netip"
	"slices"

	"corax/control/api/v1beta1"
	"corax/dataplane/key"
)

// Claim says who carries the subnets of a domain from an epoch on: a listed
// endpoint says so when the active ones are dead and nobody else elects others.
// It counts while its epoch is above that of the Gateway object.
type Claim struct {
	Gateway string
	Epoch   uint64
	Active  []string   // nodes, sorted
	From    key.Public // who claims it
}

// Better reports whether a wins over b: by the higher epoch, else the lower key.
func (a Claim) Better(b Claim) bool {
	if a.Epoch != b.Epoch {
		return a.Epoch > b.Epoch
	}
	return bytes.Compare(a.From[:], b.From[:]) < 0
}

// Equal reports whether two claims say the same.
func (a Claim) Equal(b Claim) bool {
	return a.Gateway == b.Gateway && a.Epoch == b.Epoch && a.From == b.From && slices.Equal(a.Active, b.Active)
}

// Domain is who can carry the subnets of a domain, and who does.
type Domain struct {
	// Epoch and Active are what the Gateway object says; Active is sorted.
	Epoch  uint64
	Active []string
	// Members could carry: listed tunnel endpoints with a key and an entry in
	// status.nodes, in the order of the object.
	Members []Member
	// Claim is the one in force; nil: the object is.
	Claim *Claim
	// Carriers carry now, sorted.
	Carriers []string
}

// Member is a node that could carry the subnets of its domain.
type Member struct {
	Node    string
	Key     key.Public
	Addr    netip.Addr // its node IP
	Overlay netip.Addr
	// Other is the key that it does not use at present, while it changes its key;
	// zero: there is none.
	Other key.Public
}

// maxAhead is by how much the epoch of a claim may exceed that of the object: more
// changes than an outage of the API server brings. Nobody could claim anything
// against the last number that there is.
const maxAhead = 1 << 16

// claimed puts the best claim of a domain in force, which must come from a listed
// endpoint and name some. It comes after the election: who is active by the
// objects decides how the members reach each other, whatever is claimed.
func (m *mesh) claimed(d *domain, claims []Claim) {
	d.elected = d.activeNames()
	epoch, _ := d.gw.Epoch() // an error is reported by the source
	var best *Claim
	for i := range claims {
		c := &claims[i]
		if c.Gateway != d.name || c.Epoch <= epoch || c.Epoch-epoch > maxAhead || !d.mayClaim(c) {
			continue
		}
		if best == nil || c.Better(*best) {
			best = c
		}
	}
	if best == nil {
		return
	}
	proxy := false
	d.inForce = &Claim{Gateway: d.name, Epoch: best.Epoch, From: best.From}
	for _, e := range d.members {
		was, is := d.wasElected(e.node), slices.Contains(best.Active, e.node) && d.canCarry(e)
		if is {
			d.inForce.Active = append(d.inForce.Active, e.node)
			e.active[v1beta1.TypeTunnel] = true
		} else if was {
			// It is dead: for host access too.
			proxy = proxy || e.active[v1beta1.TypeProxy]
			clear(e.active)
		}
	}
	slices.Sort(d.inForce.Active)
	for _, l := range d.entries(v1beta1.TypeProxy) {
		if e := d.memberOn[l.entry.NodeName]; proxy && e != nil && slices.Contains(d.inForce.Active, e.node) {
			e.active[v1beta1.TypeProxy] = true
		}
	}
}

// mayClaim reports whether a claim comes from who may make it, and names
// somebody who can carry.
func (d *domain) mayClaim(c *Claim) bool {
	if !d.tunnel || c.From.IsZero() {
		return false
	}
	from, names := false, false
	for _, e := range d.members {
		if !d.canCarry(e) {
			continue
		}
		from = from || e.key == c.From || e.other == c.From
		names = names || slices.Contains(c.Active, e.node)
	}
	return from && names
}

// canCarry reports whether a member could carry the subnets of its domain.
func (d *domain) canCarry(e *member) bool {
	return e.entry.Type == v1beta1.TypeTunnel && !e.key.IsZero() && d.nodeNamed[e.node] != nil
}

// activeNames are the members that are active and can carry, sorted.
func (d *domain) activeNames() []string {
	var out []string
	for _, e := range d.members {
		if e.active[v1beta1.TypeTunnel] && d.canCarry(e) {
			out = append(out, e.node)
		}
	}
	return out
}

func (d *domain) wasElected(node string) bool { return slices.Contains(d.elected, node) }

// describe is the domain for who watches it; nil without tunnel mode.
func (p *planner) describe() *Domain {
	d := p.domain
	if !p.on {
		return nil
	}
	epoch, _ := d.gw.Epoch()
	out := &Domain{Epoch: epoch, Active: slices.Clone(d.elected), Claim: d.inForce, Carriers: slices.Clone(d.carrierNames)}
	for _, l := range d.entries(v1beta1.TypeTunnel) {
		if e := d.memberOn[l.entry.NodeName]; e != nil && d.canCarry(e) {
			out.Members = append(out.Members, Member{
				Node: e.node, Key: e.key, Addr: d.nodeNamed[e.node].addr, Overlay: e.key.Overlay(), Other: e.other,
			})
		}
	}
	return out
}

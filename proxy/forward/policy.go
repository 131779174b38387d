package forward

import (
	"errors"
	"net/netip"

	"corax/dataplane/key"
)

var (
	errNotOurs   = errors.New("not in this node's own subnets")
	errForbidden = errors.New("a loopback, link-local or metadata address")
)

// metadata are services of clouds that hand out credentials to whoever can reach
// them from this host.
var metadata = map[netip.Addr]bool{
	netip.MustParseAddr("169.254.169.254"): true,
	netip.MustParseAddr("100.100.100.200"): true,
	netip.MustParseAddr("168.63.129.16"):   true,
	netip.MustParseAddr("192.0.0.192"):     true,
	netip.MustParseAddr("fd00:ec2::254"):   true,
	netip.MustParseAddr("fd20:ce::254"):    true,
}

// Forbidden says why an address is never dialled for somebody else, unless the
// operator names it; nil: it may be.
func Forbidden(a netip.Addr) error {
	a = a.Unmap()
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast():
	case a.Zone() != "" || key.OverlayPrefix.Contains(a) || metadata[a]:
	case a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240):
	default:
		return nil
	}
	return errForbidden
}

// policy says what is dialled. It never changes.
type policy struct {
	own    []netip.Prefix
	expose map[netip.Addr]netip.Addr
}

func newPolicy(own []netip.Prefix, expose []Expose) *policy {
	p := &policy{own: own, expose: make(map[netip.Addr]netip.Addr, len(expose))}
	for _, e := range expose {
		p.expose[e.At.Unmap()] = e.To.Unmap()
	}
	return p
}

// target returns whom to dial for a packet to an address. The attack stopped: an
// object, or a peer that its own rules let through, that names an address where
// this host's own services listen.
func (p *policy) target(to netip.Addr) (netip.Addr, error) {
	to = to.Unmap()
	ours := false
	for _, s := range p.own {
		ours = ours || s.Contains(to)
	}
	if !ours {
		return netip.Addr{}, errNotOurs
	}
	if t, ok := p.expose[to]; ok {
		return t, nil
	}
	if err := Forbidden(to); err != nil {
		return netip.Addr{}, err
	}
	return to, nil
}

// decide is target of the present policy, counted.
func (f *Forwarder) decide(to netip.Addr) (netip.Addr, bool) {
	t, err := f.policy.Load().target(to)
	switch {
	case err == nil:
		return t, true
	case errors.Is(err, errNotOurs):
		f.count.notOurs.Add(1)
	default:
		f.count.forbidden.Add(1)
	}
	return netip.Addr{}, false
}

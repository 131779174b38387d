package natlab_test

import (
	"fmt"
	"net/netip"
	"time"

	"corax/nat/natlab"
)

// siteKind is a kind of access to the Internet.
type siteKind int

const (
	public siteKind = iota
	fullCone
	addressRestricted
	portRestricted
	linuxOpen
	sequential
	symmetric
	double
	blocked
	v6only // reached directly over IPv6 only: random symmetric for IPv4
	siteKinds
)

var kindNames = [siteKinds]string{
	"public", "full cone", "address restr.", "port restr.", "Linux INPUT open",
	"sequential", "random", "double NAT", "UDP blocked", "IPv6",
}

func (k siteKind) String() string { return kindNames[k] }

// nat returns the kind's NAT, the inner one of two.
func (k siteKind) nat() natlab.NAT {
	switch k {
	case addressRestricted:
		return natlab.AddressRestricted()
	case portRestricted:
		return natlab.PortRestricted()
	case linuxOpen, double:
		return natlab.Masquerade(true)
	case sequential:
		return natlab.SymmetricSequential(1)
	case symmetric, v6only:
		return natlab.SymmetricRandom()
	default:
		return natlab.FullCone()
	}
}

func (k siteKind) hard() bool { return k == sequential || k == symmetric || k == v6only }

// directPossible says which pairs must become direct.
func directPossible(a, b siteKind) bool {
	switch {
	case a == blocked || b == blocked:
		return false
	case a == v6only && b == v6only:
		return true
	default:
		return !a.hard() || !b.hard()
	}
}

// site is a LAN with its routers, or for a public host just its address.
type site struct {
	sim     *sim
	n       int
	kind    siteKind
	lan     *natlab.Network
	routers []*natlab.Router // innermost first
	hosts   int
}

// addSite builds a site. All LANs use the same prefix, as homes do.
func (s *sim) addSite(kind siteKind, access natlab.Link) *site {
	st := &site{sim: s, n: len(s.sites) + 1, kind: kind}
	s.sites = append(s.sites, st)
	if kind == public {
		return st
	}
	outside, outer := s.wan, st.outer(0)
	if kind == double {
		outside = s.lab.Network(natlab.NetworkConfig{Name: fmt.Sprintf("carrier%d", st.n), Link: natlab.Link{Latency: time.Millisecond}})
		cgn := natlab.PortRestricted()
		st.routers = append(st.routers, s.lab.Router(natlab.RouterConfig{
			Name: fmt.Sprintf("cgn%d", st.n), Inside: outside, Outside: s.wan, NAT: &cgn, Link: access,
			Inner: prefixes("100.64.0.1/10"), Outer: outer,
		}))
		access, outer = natlab.Link{}, prefixes("100.64.0.2/10")
	}
	st.lan = s.lab.Network(natlab.NetworkConfig{Name: fmt.Sprintf("lan%d", st.n), Link: natlab.Link{Latency: 200 * time.Microsecond}})
	nat := kind.nat()
	cfg := natlab.RouterConfig{
		Name: fmt.Sprintf("nat%d", st.n), Inside: st.lan, Outside: outside, NAT: &nat, Link: access,
		Inner: prefixes("192.168.1.1/24"), Outer: outer, Blocked: kind == blocked,
	}
	if kind == v6only {
		cfg.Routed = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/48", st.n))}
		cfg.Firewall = true
	}
	st.routers = append([]*natlab.Router{s.lab.Router(cfg)}, st.routers...)
	return st
}

// outer returns the site's WAN address of a generation.
func (st *site) outer(generation int) []netip.Prefix {
	return prefixes(fmt.Sprintf("203.0.%d.%d/32", 113+generation, st.n))
}

// addHost attaches a host to the site.
func (st *site) addHost(access natlab.Link) (*natlab.Host, *natlab.Interface) {
	st.hosts++
	h := st.sim.lab.Host(fmt.Sprintf("%s%d.%d", []string{"pub", "edge"}[min(1, int(st.kind))], st.n, st.hosts))
	if st.kind == public {
		return h, h.Attach(st.sim.wan, access, st.outer(0)...)
	}
	addrs := prefixes(fmt.Sprintf("192.168.1.%d/24", 1+st.hosts))
	if st.kind == v6only {
		addrs = append(addrs, netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::%d/64", st.n, 1+st.hosts)))
	}
	return h, h.Attach(st.lan, natlab.Link{}, addrs...)
}

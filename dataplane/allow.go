package dataplane

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// Allow says from where a hub takes packets on its tunnel port and its TLS
// fallback. What comes from elsewhere is dropped before anything looks at it, and
// nothing is sent there.
type Allow struct {
	// Sources are the prefixes that an operator lists, sorted.
	Sources []netip.Prefix
	// Always are taken too, sorted: this host itself, the nodes of its domain,
	// and the published addresses of exposed Gateways.
	Always []netip.Prefix
	// Hosts are DNS names, sorted, that stand for published addresses.
	Hosts []string
}

// Table returns what a holds, and further addresses, for look-ups. Of nil it
// returns nil, which holds everything.
func (a *Allow) Table(more ...netip.Addr) *AllowTable {
	if a == nil {
		return nil
	}
	t := new(AllowTable)
	for _, list := range [][]netip.Prefix{a.Sources, a.Always} {
		for _, p := range list {
			if p.IsValid() {
				t.lite.Insert(p)
			}
		}
	}
	for _, x := range more {
		if x = x.Unmap(); x.IsValid() {
			t.lite.Insert(netip.PrefixFrom(x, x.BitLen()))
		}
	}
	return t
}

// AllowTable is an immutable set of addresses. The nil *AllowTable holds every
// address, the zero value none. It is safe for concurrent use.
type AllowTable struct{ lite bart.Lite }

// Contains reports whether a is in the set; an IPv4 address in IPv6 form counts
// as IPv4. It does not allocate.
func (t *AllowTable) Contains(a netip.Addr) bool {
	return t == nil || t.lite.Lookup(a.Unmap().WithZone(""))
}

// Equal reports whether both hold the same prefixes.
func (t *AllowTable) Equal(o *AllowTable) bool {
	if t == nil || o == nil {
		return t == o
	}
	return t.lite.Equal(&o.lite)
}

package hostnet

import (
	"net/netip"
	"sort"
)

// interval is a closed range of addresses of one family.
type interval struct{ first, last netip.Addr }

// intervals returns the addresses of the prefixes, all of one family, as sorted
// ranges that neither overlap nor touch. An nftables interval set takes them as
// start and end elements, and refuses overlaps.
func intervals(prefixes []netip.Prefix) []interval {
	all := make([]interval, 0, len(prefixes))
	for _, p := range prefixes {
		p = p.Masked()
		all = append(all, interval{p.Addr(), lastAddr(p)})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].first.Less(all[j].first) })
	var out []interval
	for _, iv := range all {
		if n := len(out); n > 0 {
			prev := &out[n-1]
			next := prev.last.Next() // zero behind the last address of all
			if !next.IsValid() || !next.Less(iv.first) {
				if prev.last.Less(iv.last) {
					prev.last = iv.last
				}
				continue
			}
		}
		out = append(out, iv)
	}
	return out
}

// lastAddr returns the last address of a masked prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch free := (i+1)*8 - p.Bits(); {
		case free >= 8:
			b[i] = 0xff
		case free > 0:
			b[i] |= 1<<free - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

package control

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// MaxAllowEntries bounds the entries of an allow list.
const MaxAllowEntries = 1000

// balancerSources is where balancers of Alibaba Cloud check the health of their
// backends from. Without it they take every backend for dead.
var balancerSources = netip.MustParsePrefix("100.64.0.0/10")

// ParseAllowList parses acl-entry of raven-cfg: CIDR blocks of both families,
// separated by commas, spaces around them allowed. An empty list gives nil and
// means that every source may come. The result is sorted, without host bits and
// without repetitions.
//
// One bad entry refuses the whole list, since what was meant by it is unknown
// and the rest alone would let in too few or, when it is empty, everybody; then
// the list is nil and the error names the first bad entry. Warnings are for the
// operator; the list is good all the same.
func ParseAllowList(s string) (list []netip.Prefix, warnings []string, err error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil, nil
	}
	if n := strings.Count(s, ",") + 1; n > MaxAllowEntries {
		return nil, nil, fmt.Errorf("control: allow list: %d entries, at most %d are taken", n, MaxAllowEntries)
	}
	n := 0
	for f := range strings.SplitSeq(s, ",") {
		n++
		p, err := parseAllowEntry(strings.TrimSpace(f))
		if err != nil {
			return nil, nil, fmt.Errorf("control: allow list: entry %d: %w", n, err)
		}
		if m := p.Masked(); m != p {
			warnings = append(warnings, fmt.Sprintf("%s has host bits and is taken as %s", p, m))
			p = m
		}
		list = append(list, p)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Compare(list[j]) < 0 })
	list = slices.Compact(list)
	if !covers(list, balancerSources) {
		warnings = append(warnings, fmt.Sprintf(
			"%s is not listed: health checks of Alibaba Cloud's balancers come from there and would be cut", balancerSources))
	}
	return list, warnings, nil
}

func parseAllowEntry(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, fmt.Errorf("empty")
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.Prefix{}, fmt.Errorf("%s is no CIDR block; write %s", a, netip.PrefixFrom(a, a.BitLen()))
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("not a CIDR block: %q", s[:min(len(s), 100)])
	}
	return p, nil
}

// covers reports whether one prefix of the list contains all of p.
func covers(list []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(list, func(l netip.Prefix) bool {
		return l.Bits() <= p.Bits() && l.Contains(p.Addr())
	})
}

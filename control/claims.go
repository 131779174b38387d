package control

import (
	"net/netip"
	"slices"
)

// claims is a set of subnets that do not overlap, each with its node. The zero
// value is empty.
type claims struct {
	sorted []claim // by prefix; as none overlap, by first address and by last
}

type claim struct {
	prefix netip.Prefix
	domain *domain
	node   *node
	field  string // path in the domain's Gateway
}

// add inserts c unless it overlaps a claim of the set, which it then returns.
func (s *claims) add(c claim) (claim, bool) {
	if held := s.overlapping(c.prefix); len(held) > 0 {
		return held[0], false
	}
	i, _ := s.find(c.prefix)
	s.sorted = slices.Insert(s.sorted, i, c)
	return claim{}, true
}

// overlapping returns the claims that overlap p, which aliases the set.
func (s *claims) overlapping(p netip.Prefix) []claim {
	i, found := s.find(p)
	// Only the last claim that starts before p can contain it: if an earlier
	// one did, it would overlap that one too.
	if !found && i > 0 && s.sorted[i-1].prefix.Overlaps(p) {
		i--
	}
	j := i
	for j < len(s.sorted) && s.sorted[j].prefix.Overlaps(p) {
		j++
	}
	return s.sorted[i:j]
}

func (s *claims) find(p netip.Prefix) (int, bool) {
	return slices.BinarySearchFunc(s.sorted, p, func(c claim, p netip.Prefix) int {
		return c.prefix.Compare(p)
	})
}

package control

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestClaimsOracle compares the sorted set with a list that is searched whole.
func TestClaimsOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var set claims
		var plain []netip.Prefix
		for range 60 {
			p := randomPrefix(r)
			var want []netip.Prefix
			for _, q := range plain {
				if q.Overlaps(p) {
					want = append(want, q)
				}
			}
			got := set.overlapping(p)
			if len(got) != len(want) {
				t.Fatalf("%s in %v: %d overlap, want %v", p, plain, len(got), want)
			}
			for _, c := range got {
				if !c.prefix.Overlaps(p) {
					t.Fatalf("%s does not overlap %s", c.prefix, p)
				}
			}
			if _, ok := set.add(claim{prefix: p}); ok != (len(want) == 0) {
				t.Fatalf("add %s to %v: %t", p, plain, ok)
			}
			if len(want) == 0 {
				plain = append(plain, p)
			}
		}
	}
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	if r.IntN(3) == 0 {
		a := netip.AddrFrom16([16]byte{0xfd, byte(r.IntN(4)), byte(r.IntN(4) << 6)})
		return netip.PrefixFrom(a, 8+r.IntN(16)).Masked()
	}
	a := netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), byte(r.IntN(256))})
	return netip.PrefixFrom(a, 12+r.IntN(20)).Masked()
}

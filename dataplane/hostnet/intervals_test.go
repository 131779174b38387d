package hostnet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestIntervals(t *testing.T) {
	tests := []struct {
		name string
		in   []string
		want []string
	}{
		{"none", nil, nil},
		{"one", []string{"10.0.0.0/24"}, []string{"10.0.0.0-10.0.0.255"}},
		{"adjacent", []string{"10.0.1.0/24", "10.0.0.0/24"}, []string{"10.0.0.0-10.0.1.255"}},
		{"contained", []string{"10.0.0.0/16", "10.0.3.0/24"}, []string{"10.0.0.0-10.0.255.255"}},
		{"twice", []string{"10.0.0.7/32", "10.0.0.7/32"}, []string{"10.0.0.7-10.0.0.7"}},
		{"gap", []string{"10.0.2.0/24", "10.0.0.0/24"}, []string{"10.0.0.0-10.0.0.255", "10.0.2.0-10.0.2.255"}},
		{"up to the last", []string{"255.255.255.0/24", "255.255.255.255/32"}, []string{"255.255.255.0-255.255.255.255"}},
		{"all", []string{"0.0.0.0/0", "1.0.0.0/8"}, []string{"0.0.0.0-255.255.255.255"}},
		{"host bits", []string{"10.0.0.77/25"}, []string{"10.0.0.0-10.0.0.127"}},
		{"v6", []string{"fd00:0:0:1::/64", "fd00::/64"}, []string{"fd00::-fd00::1:ffff:ffff:ffff:ffff"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var in []netip.Prefix
			for _, s := range tt.in {
				in = append(in, netip.MustParsePrefix(s))
			}
			var got []string
			for _, iv := range intervals(in) {
				got = append(got, fmt.Sprintf("%v-%v", iv.first, iv.last))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// Whatever the prefixes, the ranges hold exactly their addresses, apart and in
// order.
func TestIntervalsAgainstPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var in []netip.Prefix
		for range r.IntN(8) {
			// A small space, so that prefixes meet.
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))})
			in = append(in, netip.PrefixFrom(a, 25+r.IntN(8)))
		}
		got := intervals(in)
		for i := 1; i < len(got); i++ {
			if !got[i-1].last.Next().Less(got[i].first) {
				t.Fatalf("%v: %v touches %v", in, got[i-1], got[i])
			}
		}
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			want := slices.ContainsFunc(in, func(p netip.Prefix) bool { return p.Contains(a) })
			have := slices.ContainsFunc(got, func(iv interval) bool { return !a.Less(iv.first) && !iv.last.Less(a) })
			if have != want {
				t.Fatalf("%v: %v in ranges %t, in prefixes %t", in, a, have, want)
			}
		}
	}
}

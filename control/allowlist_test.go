package control_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"corax/control"
)

func TestParseAllowList(t *testing.T) {
	const noBalancer = "100.64.0.0/10 is not listed"
	for _, tt := range []struct {
		name, in string
		want     []string
		warnings []string // what each contains
		err      string   // what it contains
	}{
		{name: "empty lets everybody in"},
		{name: "spaces only", in: " \n\t"},
		{name: "with the balancer's own range", in: "47.1.2.3/32,100.64.0.0/10", want: []string{"47.1.2.3/32", "100.64.0.0/10"}},
		{name: "in a wider range", in: "100.0.0.0/8", want: []string{"100.0.0.0/8"}},
		{name: "everything", in: "0.0.0.0/0", want: []string{"0.0.0.0/0"}},
		{name: "a part of the range", in: "100.64.0.0/11", want: []string{"100.64.0.0/11"}, warnings: []string{noBalancer}},
		{name: "without it", in: "47.1.2.3/32", want: []string{"47.1.2.3/32"}, warnings: []string{noBalancer}},
		{name: "spaces, both families, sorted", in: " 2001:db8::/32 ,\n100.64.0.0/10 ", want: []string{"100.64.0.0/10", "2001:db8::/32"}},
		{name: "repeated", in: "100.64.0.0/10,100.64.0.0/10", want: []string{"100.64.0.0/10"}},
		{
			name: "host bits", in: "100.64.0.0/10,10.1.2.3/24", want: []string{"10.1.2.0/24", "100.64.0.0/10"},
			warnings: []string{"10.1.2.3/24 has host bits"},
		},
		{name: "an address", in: "100.64.0.0/10,47.1.2.3", err: "entry 2: 47.1.2.3 is no CIDR block; write 47.1.2.3/32"},
		{name: "an IPv6 address", in: "2001:db8::1", err: "write 2001:db8::1/128"},
		{name: "trailing comma", in: "10.0.0.0/8,", err: "entry 2: empty"},
		{name: "comma only", in: ",", err: "entry 1: empty"},
		{name: "one bad entry refuses all", in: "10.0.0.0/8,x,100.64.0.0/10", err: `entry 2: not a CIDR block: "x"`},
		{name: "mask too long", in: "10.0.0.0/33", err: "not a CIDR block"},
		{name: "leading zeros", in: "10.0.0.01/32", err: "not a CIDR block"},
		{name: "IPv4 as IPv6", in: "::ffff:10.0.0.0/104", err: "not a CIDR block"},
		{name: "other separator", in: "10.0.0.0/8;100.64.0.0/10", err: "not a CIDR block"},
		{name: "zone", in: "fe80::1%eth0", err: "not a CIDR block"},
		{name: "too many", in: strings.Repeat("10.0.0.0/8,", control.MaxAllowEntries) + "10.0.0.0/8", err: "at most 1000"},
		{name: "long garbage is cut", in: strings.Repeat("x", 5000), err: "not a CIDR block"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, warnings, err := control.ParseAllowList(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || len(err.Error()) > 300 || got != nil {
					t.Fatalf("got %v, error %v; want nothing and %q", got, err, tt.err)
				}
				return
			}
			var texts []string
			for _, p := range got {
				texts = append(texts, p.String())
			}
			if err != nil || !slices.Equal(texts, tt.want) {
				t.Errorf("got %v, %v; want %v", texts, err, tt.want)
			}
			if len(warnings) != len(tt.warnings) {
				t.Fatalf("warnings %q, want %q", warnings, tt.warnings)
			}
			for i, w := range tt.warnings {
				if !strings.Contains(warnings[i], w) {
					t.Errorf("warning %q does not say %q", warnings[i], w)
				}
			}
		})
	}
}

func FuzzParseAllowList(f *testing.F) {
	for _, s := range []string{"", "10.0.0.0/8", "100.64.0.0/10, 2001:db8::/32", "10.0.0.1", ",", "10.0.0.1/24,x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, warnings, err := control.ParseAllowList(s)
		if err != nil {
			if list != nil || warnings != nil {
				t.Fatalf("%q: an error and a list", s)
			}
			return
		}
		if len(list) == 0 && strings.TrimSpace(s) != "" {
			t.Fatalf("%q became a list that lets everybody in", s)
		}
		// What was understood, written out, means the same, now without host bits.
		again, _, err := control.ParseAllowList(text(list))
		if err != nil || !slices.Equal(list, again) {
			t.Fatalf("%q: %v, then %v, %v", s, list, again, err)
		}
		for _, p := range list {
			if p != p.Masked() || p.Addr().Is4In6() {
				t.Fatalf("%q: %v", s, p)
			}
		}
	})
}

// text writes a list as acl-entry has it.
func text(list []netip.Prefix) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
}

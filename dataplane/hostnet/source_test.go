package hostnet

import (
	"net/netip"
	"strings"
	"testing"
)

func TestChooseSource(t *testing.T) {
	addr := netip.MustParseAddr
	tests := []struct {
		name     string
		override string
		subnets  []string
		addrs    []hostAddr
		want     string // empty: none
		local    bool
		warn     bool
	}{
		{
			name: "bridge", subnets: []string{"10.10.0.0/24"},
			addrs: []hostAddr{{addr("192.0.2.1"), "eth0", true, true}, {addr("10.10.0.1"), "cni0", true, true}},
			want:  "10.10.0.1", local: true,
		},
		{
			name: "bridge before the network address of flannel.1", subnets: []string{"10.10.0.0/24"},
			addrs: []hostAddr{{addr("10.10.0.0"), "flannel.1", true, true}, {addr("10.10.0.1"), "cni0", true, true}},
			want:  "10.10.0.1", local: true,
		},
		{
			name: "flannel.1 while cni0 is down", subnets: []string{"10.10.0.0/24"},
			addrs: []hostAddr{{addr("10.10.0.0"), "flannel.1", true, true}, {addr("10.10.0.1"), "cni0", false, true}},
			want:  "10.10.0.0", local: true,
		},
		{
			name: "a link that is down is better than none", subnets: []string{"10.10.0.0/24"},
			addrs: []hostAddr{{addr("10.10.0.1"), "cni0", false, true}}, want: "10.10.0.1", local: true,
		},
		{
			name: "a subnet of one address is no network address", subnets: []string{"10.10.0.9/32"},
			addrs: []hostAddr{{addr("10.10.0.9"), "lo", true, true}}, want: "10.10.0.9", local: true,
		},
		{
			name: "tentative", subnets: []string{"fd10::/64"},
			addrs: []hostAddr{{addr("fd10::1"), "cni0", true, false}},
		},
		{
			name: "nothing inside", subnets: []string{"10.10.0.0/24"},
			addrs: []hostAddr{{addr("192.0.2.1"), "eth0", true, true}},
		},
		{name: "no subnets", addrs: []hostAddr{{addr("192.0.2.1"), "eth0", true, true}}},
		{
			name: "override", override: "10.10.0.5", subnets: []string{"10.10.0.0/24"},
			addrs: []hostAddr{{addr("10.10.0.1"), "cni0", true, true}, {addr("10.10.0.5"), "lo", true, true}},
			want:  "10.10.0.5", local: true,
		},
		{
			name: "override that the host does not have", override: "10.10.0.5", subnets: []string{"10.10.0.0/24"},
			addrs: []hostAddr{{addr("10.10.0.1"), "cni0", true, true}}, want: "10.10.0.5",
		},
		{
			name: "override outside", override: "192.0.2.1", subnets: []string{"10.10.0.0/24"},
			addrs: []hostAddr{{addr("192.0.2.1"), "eth0", true, true}}, want: "192.0.2.1", local: true, warn: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var override netip.Addr
			if tt.override != "" {
				override = addr(tt.override)
			}
			var subnets []netip.Prefix
			for _, s := range tt.subnets {
				subnets = append(subnets, netip.MustParsePrefix(s))
			}
			got := chooseSource(override, subnets, tt.addrs)
			if want := tt.want; want == "" && got.addr.IsValid() || want != "" && got.addr.String() != want {
				t.Errorf("address %v, want %q", got.addr, want)
			}
			if got.local != tt.local || (got.warn != "") != tt.warn || got.why == "" {
				t.Errorf("local %t, warn %q, why %q; want local %t, warn %t and a reason", got.local, got.warn, got.why, tt.local, tt.warn)
			}
		})
	}
}

func TestConfigValidate(t *testing.T) {
	addrs := func(ss ...string) (out []netip.Addr) {
		for _, s := range ss {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	tests := []struct {
		name string
		cfg  Config
		ok   bool
	}{
		{"default", Config{Name: DefaultName}, true},
		{"one source per family", Config{Name: "c", HostSource: addrs("10.0.0.1", "fd00::1")}, true},
		{"two of a family", Config{Name: "c", HostSource: addrs("10.0.0.1", "10.0.0.2")}, false},
		{"unspecified source", Config{Name: "c", HostSource: addrs("0.0.0.0")}, false},
		{"multicast source", Config{Name: "c", HostSource: addrs("ff02::1")}, false},
		{"zoned source", Config{Name: "c", HostSource: addrs("fe80::1%eth0")}, false},
		{"mapped source", Config{Name: "c", HostSource: addrs("::ffff:10.0.0.1")}, false},
		{"no source", Config{Name: "c", HostSource: []netip.Addr{{}}}, false},
		{"empty name", Config{}, false},
		{"long name", Config{Name: strings.Repeat("c", 16)}, false},
		{"name with slash", Config{Name: "a/b"}, false},
		{"name with space", Config{Name: "a b"}, false},
		{"pattern", Config{Name: "corax%d"}, false},
		{"dots", Config{Name: ".."}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.cfg.validate(); (err == nil) != tt.ok {
				t.Errorf("validate: %v, want ok %t", err, tt.ok)
			}
		})
	}
}

func TestProblemString(t *testing.T) {
	if got, want := (Problem{What: "a is off"}).String(), "a is off"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (Problem{What: "a is off", Mend: "on a"}).String(), "a is off; mend it with: on a"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

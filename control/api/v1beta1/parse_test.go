package v1beta1_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"corax/control/api/v1beta1"
)

func TestParsePorts(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []uint16
		bad      bool
	}{
		{"empty", "", nil, false},
		{"spaces only", "  ", nil, false},
		{"one", "10250", []uint16{10250}, false},
		{"several, spaces, repeated", "10250, 9100 ,10250", []uint16{10250, 9100}, false},
		{"one bad", "10250,http,9100", []uint16{10250, 9100}, true},
		{"zero", "0", nil, true},
		{"too large", "65536", nil, true},
		{"negative", "-1", nil, true},
		{"empty element", "1,,2", []uint16{1, 2}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := v1beta1.ParsePorts(tt.in)
			if !slices.Equal(got, tt.want) || (err != nil) != tt.bad {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestParsePortMap(t *testing.T) {
	got, err := v1beta1.ParsePortMap("10250=10281, 9100=10285,x=1,7")
	if diff := cmp.Diff(map[uint16]uint16{10250: 10281, 9100: 10285}, got); diff != "" {
		t.Error(diff)
	}
	if err == nil || !strings.Contains(err.Error(), `"x=1"`) || !strings.Contains(err.Error(), `"7"`) {
		t.Errorf("error %v does not name the bad pairs", err)
	}
	if got, err := v1beta1.ParsePortMap(""); err != nil || len(got) != 0 {
		t.Errorf("empty: %v, %v", got, err)
	}
}

func TestParseAddr(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"10.0.0.1", "10.0.0.1"},
		{"2001:db8::1", "2001:db8::1"},
		{"::ffff:10.0.0.1", "10.0.0.1"},
		{"", ""},
		{"10.0.0", ""},
		{"10.0.0.01", ""},
		{"0.0.0.0", ""},
		{"127.0.0.1", ""},
		{"::1", ""},
		{"224.0.0.1", ""},
		{"fe80::1%eth0", ""},
		{"2001:db8::1%eth0", ""},
		{"169.254.1.1", ""},
	} {
		got, err := v1beta1.ParseAddr(tt.in)
		if (err != nil) != (tt.want == "") || err == nil && got.String() != tt.want {
			t.Errorf("ParseAddr(%q) = %v, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestParseSubnet(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"10.244.1.0/24", "10.244.1.0/24"},
		{"10.244.1.7/24", "10.244.1.0/24"},
		{"fd00:1::/64", "fd00:1::/64"},
		{"10.244.1.7/32", "10.244.1.7/32"},
		{"10.244.1.0", ""},
		{"10.244.1.0/33", ""},
		{"0.0.0.0/0", ""},
		{"::/0", ""},
		{"127.1.0.0/16", ""},
		{"0.0.0.0/1", ""},
		{"224.0.0.0/24", ""},
		{"169.254.0.0/17", ""},
		{"fe80::/64", ""},
		{"ff02::/16", ""},
		{"::ffff:10.0.0.0/104", ""},
		{"fd63:6f72:6178:5::/64", ""},
		{"fd63::/16", ""},
	} {
		got, err := v1beta1.ParseSubnet(tt.in)
		if (err != nil) != (tt.want == "") || err == nil && got.String() != tt.want {
			t.Errorf("ParseSubnet(%q) = %v, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestCheckNames(t *testing.T) {
	for _, tt := range []struct {
		in         string
		name, host bool
	}{
		{"edge-a", true, true},
		{"Edge_1.example.org", true, true},
		{"example.org.", true, true},
		{"", false, false},
		{"a b", false, false},
		{"a/b", false, false},
		{"a\x00b", false, false},
		{"-a", true, false},
		{"a..b", true, false},
		{"192.0.2.1", true, false},
		{strings.Repeat("a", 64), true, false},
		{strings.Repeat("a.", 150), false, false},
	} {
		if err := v1beta1.CheckName(tt.in); (err == nil) != tt.name {
			t.Errorf("CheckName(%q) = %v", tt.in, err)
		}
		if err := v1beta1.CheckHost(tt.in); (err == nil) != tt.host {
			t.Errorf("CheckHost(%q) = %v", tt.in, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "1,2", "10250=10281", "10.0.0.0/8", "::1", "host.example.org", "fd63::/16"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ports, err := v1beta1.ParsePorts(s); err == nil && slices.Contains(ports, 0) {
			t.Errorf("ParsePorts(%q) has port 0", s)
		}
		if _, err := v1beta1.ParsePortMap(s); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error of %q has several lines", s)
		}
		if a, err := v1beta1.ParseAddr(s); err == nil && (!a.IsValid() || a.Is4In6() || a.Zone() != "") {
			t.Errorf("ParseAddr(%q) = %v", s, a)
		}
		if p, err := v1beta1.ParseSubnet(s); err == nil {
			if again, err := v1beta1.ParseSubnet(p.String()); err != nil || again != p || p != p.Masked() {
				t.Errorf("ParseSubnet(%q) = %v, then %v, %v", s, p, again, err)
			}
		}
		_ = v1beta1.CheckName(s)
		_ = v1beta1.CheckHost(s)
	})
}

func TestClip(t *testing.T) {
	for _, tt := range []struct {
		s    string
		most int
		want string
	}{
		{"short", 5, "short"},
		{"longer", 5, "longe..."},
		{"", 0, ""},
		{"caf\u00e9s", 4, "caf..."}, // \u00e9 has two bytes
		{"caf\u00e9s", 5, "caf\u00e9..."},
	} {
		if got := v1beta1.Clip(tt.s, tt.most); got != tt.want {
			t.Errorf("%q, %d: %q", tt.s, tt.most, got)
		}
	}
}

package forward

import (
	"net/netip"
	"testing"
)

func TestParseDestinations(t *testing.T) {
	for _, tt := range []struct {
		text, prefix string
		port         uint16
	}{
		{"10.0.0.1", "10.0.0.1/32", 0},
		{"10.0.0.1:80", "10.0.0.1/32", 80},
		{"10.0.0.0/24", "10.0.0.0/24", 0},
		{"10.0.0.0/24:80", "10.0.0.0/24", 80},
		{"fd00::1", "fd00::1/128", 0},
		{"fd00::/64", "fd00::/64", 0},
		{"[fd00::1]:80", "fd00::1/128", 80},
		{"[fd00::]/64:80", "fd00::/64", 80},
		{"", "", 0},
		{"10.0.0.1:0", "", 0},
		{"10.0.0.1:http", "", 0},
		{"10.0.0.1/24:80", "", 0},
		{"name:80", "", 0},
	} {
		d, err := ParseDestinations(tt.text)
		if tt.prefix == "" {
			if err == nil {
				t.Errorf("%q: %v", tt.text, d)
			}
			continue
		}
		if want := (Destinations{Prefix: netip.MustParsePrefix(tt.prefix), Port: tt.port}); err != nil || d != want {
			t.Errorf("%q: %v, %v; want %v", tt.text, d, err, want)
		}
	}
}

func FuzzParseDestinations(f *testing.F) {
	f.Add("[fd00::]/64:80")
	f.Add("10.0.0.0/24:80")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDestinations(s); err == nil && (!d.Prefix.IsValid() || d.Prefix != d.Prefix.Masked()) {
			t.Errorf("%q: %v", s, d)
		}
	})
}

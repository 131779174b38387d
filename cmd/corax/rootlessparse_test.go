package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"corax/proxy/forward"
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
		d, err := parseDestinations(tt.text)
		if tt.prefix == "" {
			if err == nil {
				t.Errorf("%q: %v", tt.text, d)
			}
			continue
		}
		if want := (forward.Destinations{Prefix: netip.MustParsePrefix(tt.prefix), Port: tt.port}); err != nil || d != want {
			t.Errorf("%q: %v, %v; want %v", tt.text, d, err, want)
		}
	}
}

func FuzzParseDestinations(f *testing.F) {
	f.Add("[fd00::]/64:80")
	f.Add("10.0.0.0/24:80")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDestinations(s); err == nil && (!d.Prefix.IsValid() || d.Prefix != d.Prefix.Masked()) {
			t.Errorf("%q: %v", s, d)
		}
	})
}

func TestLoopback(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"1080", "127.0.0.1:1080"},
		{":1080", "127.0.0.1:1080"},
		{"127.0.0.2:1080", "127.0.0.2:1080"},
		{"[::1]:1080", "[::1]:1080"},
		{"/run/corax/socks.sock", "unix:/run/corax/socks.sock"},
		{"0.0.0.0:1080", ""},
		{"10.0.0.1:1080", ""},
		{"127.0.0.1:0", ""},
		{"localhost:1080", ""},
		{"", ""},
	} {
		var d doorAt
		err := loopback(&d)(tt.text)
		if tt.want == "" && err == nil || tt.want != "" && (err != nil || d.String() != tt.want) {
			t.Errorf("%q: %v, %v; want %q", tt.text, d, err, tt.want)
		}
	}
}

func TestUsersFile(t *testing.T) {
	for _, tt := range []struct {
		text string
		want map[string]string
	}{
		{"# who\na:b\n\nc:d:e\r\n", map[string]string{"a": "b", "c": "d:e"}},
		{"", nil},
		{"a\n", nil},
		{"a:\n", nil},
		{":b\n", nil},
	} {
		var got map[string]string
		err := usersFile(&got, func(string) ([]byte, error) { return []byte(tt.text), nil })("file")
		if (err == nil) != (tt.want != nil) || !cmp.Equal(got, tt.want) {
			t.Errorf("%q: %v, %v", tt.text, got, err)
		}
	}
}

func TestOutboundSource(t *testing.T) {
	list := func(s ...string) (p []netip.Prefix) {
		for _, x := range s {
			p = append(p, netip.MustParsePrefix(x))
		}
		return p
	}
	own := list("10.1.0.0/24", "fd00:1::/64")
	for _, tt := range []struct {
		name      string
		v6        bool
		override  string
		own, host []netip.Prefix
		want      string
	}{
		{"bridge", false, "", own, list("192.168.1.2/24", "10.1.0.7/24"), "10.1.0.7"},
		{"flannel's is the network's", false, "", own, list("10.1.0.0/32"), "10.1.0.1"},
		{"first", false, "", own, list("192.168.1.2/24"), "10.1.0.1"},
		{"first of v6", true, "", own, nil, "fd00:1::1"},
		{"given", false, "10.1.0.9", own, list("10.1.0.7/24"), "10.1.0.9"},
		{"given outside", false, "10.9.0.9", own, nil, "10.1.0.1"},
		{"single", false, "", list("10.1.0.5/32"), nil, "10.1.0.5"},
		{"none", true, "", list("10.1.0.0/24"), nil, ""},
	} {
		var override []netip.Addr
		if tt.override != "" {
			override = append(override, netip.MustParseAddr(tt.override))
		}
		got := outboundSource(tt.v6, override, tt.own, tt.host)
		if got.IsValid() != (tt.want != "") || got.IsValid() && got.String() != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}

package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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

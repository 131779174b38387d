package forward

import (
	"errors"
	"net/netip"
	"testing"
)

func TestPolicy(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	expose := []Expose{
		{netip.MustParseAddr("10.1.0.250"), netip.MustParseAddr("127.0.0.1")},
		{netip.MustParseAddr("192.168.9.9"), netip.MustParseAddr("192.168.1.1")},
	}
	for _, tt := range []struct {
		own      []netip.Prefix
		to, want string
		err      error
	}{
		{own, "10.1.0.2", "10.1.0.2", nil},
		{own, "fd00:1::2", "fd00:1::2", nil},
		{own, "::ffff:10.1.0.2", "10.1.0.2", nil},
		{own, "10.2.0.2", "", errNotOurs},
		{nil, "10.1.0.2", "", errNotOurs},
		{own, "127.0.0.1", "", errNotOurs},
		{own, "10.1.0.250", "127.0.0.1", nil},
		{own, "192.168.9.9", "", errNotOurs}, // exposed, but not in our subnets
		{all, "127.0.0.1", "", errForbidden},
		{all, "127.8.9.1", "", errForbidden},
		{all, "::1", "", errForbidden},
		{all, "::ffff:127.0.0.1", "", errForbidden},
		{all, "0.0.0.0", "", errForbidden},
		{all, "0.1.2.3", "", errForbidden},
		{all, "::", "", errForbidden},
		{all, "169.254.169.254", "", errForbidden},
		{all, "169.254.1.1", "", errForbidden},
		{all, "fe80::1", "", errForbidden},
		{all, "fd00:ec2::254", "", errForbidden},
		{all, "100.100.100.200", "", errForbidden},
		{all, "224.0.0.1", "", errForbidden},
		{all, "255.255.255.255", "", errForbidden},
		{all, "ff02::1", "", errForbidden},
		{all, "fd63:6f72:6178::1", "", errForbidden},
	} {
		got, err := newPolicy(tt.own, expose).target(netip.MustParseAddr(tt.to))
		if !errors.Is(err, tt.err) || err == nil && got.String() != tt.want {
			t.Errorf("%s: %v, %v; want %s, %v", tt.to, got, err, tt.want, tt.err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	a, b := netip.MustParseAddr("10.1.0.250"), netip.MustParseAddr("10.9.0.1")
	for name, cfg := range map[string]Config{
		"twice":    {Expose: []Expose{{a, b}, {a, b}}},
		"families": {Expose: []Expose{{a, netip.IPv6Loopback()}}},
		"nothing":  {Expose: []Expose{{a, netip.Addr{}}}},
		"limit":    {Limits: Limits{Flows: -1}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseEchoReply(f *testing.F) {
	f.Add([]byte{0, 0, 1, 2, 3, 4, 5, 6, 7}, true)
	f.Add([]byte{129, 0, 1, 2, 3, 4, 5, 6}, false)
	f.Fuzz(func(t *testing.T, b []byte, v4 bool) {
		seq, payload, ok := parseEchoReply(b, v4)
		if ok && (len(payload) != len(b)-8 || seq != uint16(b[6])<<8|uint16(b[7])) {
			t.Errorf("%x: %d, %x", b, seq, payload)
		}
	})
}

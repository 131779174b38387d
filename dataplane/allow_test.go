package dataplane_test

import (
	"net/netip"
	"testing"

	"corax/dataplane"
)

func TestAllowTable(t *testing.T) {
	a := &dataplane.Allow{
		Sources: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Always:  []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32"), {}},
	}
	table := a.Table(netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("::ffff:198.51.100.2"), netip.Addr{})
	for _, tt := range []struct {
		addr string
		want bool
	}{
		{"203.0.113.9", true},
		{"::ffff:203.0.113.9", true},
		{"203.0.114.9", false},
		{"10.0.0.7", true},
		{"10.0.0.8", false},
		{"2001:db8::1", true},
		{"2001:db8::1%eth0", true},
		{"2001:db9::1", false},
		{"198.51.100.1", true},
		{"198.51.100.2", true},
		{"198.51.100.3", false},
		{"0.0.0.0", false},
	} {
		if got := table.Contains(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("%s: %t", tt.addr, got)
		}
	}
	if table.Contains(netip.Addr{}) {
		t.Error("the zero address is in the set")
	}
	addr := netip.MustParseAddr("203.0.113.9")
	if n := testing.AllocsPerRun(100, func() { _ = table.Contains(addr) }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

func TestAllowEverything(t *testing.T) {
	var none *dataplane.Allow
	table := none.Table(netip.MustParseAddr("10.0.0.1"))
	if table != nil || !table.Contains(netip.MustParseAddr("192.0.2.1")) {
		t.Error("no list does not hold everything")
	}
	if empty := (&dataplane.Allow{}).Table(); empty.Contains(netip.MustParseAddr("192.0.2.1")) {
		t.Error("an empty list holds something")
	}
}

func TestAllowTableEqual(t *testing.T) {
	one := &dataplane.Allow{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	two := &dataplane.Allow{Always: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	other := &dataplane.Allow{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/9")}}
	var none *dataplane.AllowTable
	switch {
	case !one.Table().Equal(two.Table()):
		t.Error("equal sets differ")
	case one.Table().Equal(other.Table()):
		t.Error("other sets are equal")
	case !none.Equal(nil) || none.Equal(one.Table()) || one.Table().Equal(nil):
		t.Error("nil is not equal to itself alone")
	}
}

package front

import (
	"net/netip"
	"testing"
)

// TestGate shows that a /64 of IPv6 counts as one address, and that leaving makes room.
func TestGate(t *testing.T) {
	g := newGate(4)
	var leave []func()
	for i, c := range []struct {
		from string
		ok   bool
	}{
		{"2001:db8::1", true},
		{"2001:db8::2", true},
		{"2001:db8::3", false},
		{"2001:db8:0:1::1", true},
		{"10.0.0.1", true},
		{"10.0.0.2", false},
	} {
		l, ok := g.enter(netip.MustParseAddr(c.from))
		if ok != c.ok {
			t.Errorf("connection %d from %s: %t", i, c.from, ok)
		}
		if ok {
			leave = append(leave, l)
		}
	}
	for _, l := range leave {
		l()
		l()
	}
	if g.total != 0 || len(g.by) != 0 {
		t.Errorf("%d connections of %v are left", g.total, g.by)
	}
}

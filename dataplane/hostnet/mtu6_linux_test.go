package hostnet

import (
	"net/netip"
	"testing"

	"corax/dataplane"
)

// The kernel looks at no route's MTU when it forwards IPv6 packets.
func TestMTU6FollowsTheRoutes(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	h := newHost(t, Config{})
	route := func(prefix string, mtu int) dataplane.HostRoute {
		return dataplane.HostRoute{Prefix: netip.MustParsePrefix(prefix), MTU: mtu}
	}
	for _, tt := range []struct {
		name   string
		routes []dataplane.HostRoute
		want   string
	}{
		{"no route of the family", []dataplane.HostRoute{route("10.20.0.0/16", 1360)}, "1408"},
		{"one", []dataplane.HostRoute{route("10.20.0.0/16", 1400), route("fd10:20::/48", 1360)}, "1360"},
		{"the largest of several", []dataplane.HostRoute{route("fd10:20::/48", 1330), route("fd10:21::/48", 1290)}, "1330"},
		{"less than every link carries", []dataplane.HostRoute{route("fd10:20::/48", 1230)}, "1280"},
		{"more than the device's", []dataplane.HostRoute{route("fd10:20::/48", 1500)}, "1408"},
		{"the device's", []dataplane.HostRoute{route("fd10:20::/48", 0)}, "1408"},
	} {
		s := testState()
		s.Routes = tt.routes
		apply(t, h, s)
		if got := readSysctl("net/ipv6/conf/corax0/mtu"); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}

	// Somebody changed it, or the device was down.
	s := testState()
	apply(t, h, s)
	setSysctl(t, "1400", "net/ipv6/conf/corax0/mtu")
	apply(t, h, s)
	if got := readSysctl("net/ipv6/conf/corax0/mtu"); got != "1280" {
		t.Errorf("after a change by somebody else: %s, want 1280", got)
	}
}

package hostnet

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"corax/dataplane"
)

func TestWantRoutes(t *testing.T) {
	p4, p6 := netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("fd10:20::/48")
	src := [2]source{{addr: netip.MustParseAddr("10.10.0.1"), local: true}, {addr: netip.MustParseAddr("fd10:10::99")}}
	down := map[routeKey]routeAttrs{
		{p4, UnreachableMetric}: {unreachable: true},
		{p6, UnreachableMetric}: {unreachable: true},
	}
	with := func(m map[routeKey]routeAttrs) map[routeKey]routeAttrs {
		for k, v := range down {
			m[k] = v
		}
		return m
	}
	routes := func(mtu4, mtu6 int) []dataplane.HostRoute {
		return []dataplane.HostRoute{{Prefix: netip.MustParsePrefix("10.20.3.4/16"), MTU: mtu4}, {Prefix: p6, MTU: mtu6}}
	}
	tests := []struct {
		name   string
		routes []dataplane.HostRoute
		links  [2]int
		mtu    int
		want   map[routeKey]routeAttrs
	}{
		{"no device", routes(1360, 1360), [2]int{}, 1408, down},
		{"device without IPv6", routes(1360, 1360), [2]int{7, 0}, 1408, with(map[routeKey]routeAttrs{
			{p4, 0}: {link: 7, src: src[0].addr, mtu: 1360},
		})},
		{"MTU of the route, masked prefix, source only where local", routes(1184, 1344), [2]int{7, 7}, 1408, with(map[routeKey]routeAttrs{
			{p4, 0}: {link: 7, src: src[0].addr, mtu: 1184}, {p6, 1024}: {link: 7, mtu: 1344},
		})},
		{"IPv6 not below 1280", routes(1184, 1184), [2]int{7, 7}, 1408, with(map[routeKey]routeAttrs{
			{p4, 0}: {link: 7, src: src[0].addr, mtu: 1184}, {p6, 1024}: {link: 7, mtu: 1280},
		})},
		{"MTU of the device", routes(0, 0), [2]int{7, 7}, 1408, with(map[routeKey]routeAttrs{
			{p4, 0}: {link: 7, src: src[0].addr, mtu: 1408}, {p6, 1024}: {link: 7, mtu: 1408},
		})},
		{"no MTU", routes(0, 0), [2]int{7, 7}, 0, with(map[routeKey]routeAttrs{
			{p4, 0}: {link: 7, src: src[0].addr}, {p6, 1024}: {link: 7},
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := wantRoutes(tt.routes, tt.links, tt.mtu, src)
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(routeKey{}, routeAttrs{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func encode(k routeKey, a routeAttrs) (b []byte) {
	for _, d := range routeMsg(k, a, Protocol, Table) {
		b = append(b, d.Serialize()...)
	}
	return b
}

func TestRouteRoundTrip(t *testing.T) {
	p4, p6 := netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("fd10:20::/48")
	tests := map[string]struct {
		k routeKey
		a routeAttrs
	}{
		"v4":             {routeKey{p4, 0}, routeAttrs{link: 3, mtu: 1360, src: netip.MustParseAddr("10.1.1.1")}},
		"v4 bare":        {routeKey{p4, 0}, routeAttrs{link: 3}},
		"v4 unreachable": {routeKey{p4, UnreachableMetric}, routeAttrs{unreachable: true}},
		"v6":             {routeKey{p6, metric6}, routeAttrs{link: 300, mtu: 1280, src: netip.MustParseAddr("fd00::1")}},
		"v6 unreachable": {routeKey{p6, UnreachableMetric}, routeAttrs{unreachable: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := decodeRoute(encode(tt.k, tt.a), Table)
			want := tableRoute{routeKey: tt.k, routeAttrs: tt.a, protocol: Protocol}
			if !ok || got != want {
				t.Errorf("got %+v, %t; want %+v", got, ok, want)
			}
			if _, ok := decodeRoute(encode(tt.k, tt.a), Table+1); ok {
				t.Error("decoded as a route of another table")
			}
		})
	}
}

func FuzzDecodeRoute(f *testing.F) {
	f.Add(encode(routeKey{netip.MustParsePrefix("10.20.0.0/16"), 0}, routeAttrs{link: 3, mtu: 1360}))
	f.Add(encode(routeKey{netip.MustParsePrefix("fd10::/48"), UnreachableMetric}, routeAttrs{unreachable: true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := decodeRoute(b, Table)
		if ok && !r.prefix.IsValid() {
			t.Errorf("accepted prefix %v", r.prefix)
		}
	})
}

// FuzzEvents feeds every event decoder with bytes of any kind.
func FuzzEvents(f *testing.F) {
	f.Add(uint16(unix.RTM_NEWLINK), nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize())
	f.Add(uint16(unix.RTM_NEWNETCONF), []byte{2, 0, 0, 0, 8, 0, 1, 0, 0xff, 0xff, 0xff, 0xff})
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELRULE), []byte{1, 0, 0, 0, 8, 0, 7, 0, 0, 200, 1, 1})
	f.Add(uint16(unix.RTM_NEWRULE), encode(routeKey{netip.MustParsePrefix("10.0.0.0/8"), 100}, routeAttrs{}))
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		w := newWatcher("corax0")
		w.concerns(event(typ, b))
		decodeConf(b)
	})
}

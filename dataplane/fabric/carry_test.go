package fabric

import (
	"net/netip"
	"testing"
	"time"

	"corax/dataplane"
)

// TestCarry: up to a route's Carry a packet that is too big goes out all the same,
// and its sender is told.
func TestCarry(t *testing.T) {
	w := newWorld(t)
	cfg := gatewayConfig()
	to4, to6 := netip.MustParsePrefix("10.99.0.0/24"), netip.MustParsePrefix("fd00:99::/64")
	for _, p := range []netip.Prefix{to4, to6} {
		cfg.Routes = append(cfg.Routes, dataplane.Route{Prefix: p, Via: dataplane.ViaWireGuard, MTU: 1296, Carry: 1360})
	}
	w.apply(t, cfg)
	for _, tt := range []struct {
		name       string
		size       int
		v6         bool
		out, told  int
		carried    uint64
		droppedBig uint64
	}{
		{"fits", 1296, false, 1, 0, 0, 0},
		{"too big, carried", 1297, false, 1, 1, 1, 0},
		{"as large as is carried", 1360, false, 1, 1, 1, 0},
		{"larger", 1361, false, 0, 1, 0, 1},
		{"IPv6 fits", 1296, true, 1, 0, 0, 0},
		{"IPv6 too big, carried", 1360, true, 1, 1, 1, 0},
		{"IPv6 larger", 1361, true, 0, 1, 0, 1},
	} {
		carried, dropped := w.count(t, "fabric_over_mtu_total", ""), w.count(t, "fabric_drop_total", "too_big")
		p := spec{src: "10.1.1.5", dst: "10.99.0.5", frag: flagDF, proto: 253, payload: make([]byte, tt.size-20)}
		if tt.v6 {
			p = spec{src: "fd00:1:1::5", dst: "fd00:99::5", proto: 253, payload: make([]byte, tt.size-40)}
		}
		w.now = w.now.Add(time.Second)
		out := w.send(FromVXLAN, vtepA, p.build())
		if n := len(out[FromWireGuard]); n != tt.out {
			t.Errorf("%s: %d packets went out, want %d", tt.name, n, tt.out)
		}
		if n := len(out[FromVXLAN]); n != tt.told {
			t.Errorf("%s: the sender was told %d times, want %d", tt.name, n, tt.told)
		}
		if n := w.count(t, "fabric_over_mtu_total", "") - carried; n != tt.carried {
			t.Errorf("%s: %d counted as carried, want %d", tt.name, n, tt.carried)
		}
		if n := w.count(t, "fabric_drop_total", "too_big") - dropped; n != tt.droppedBig {
			t.Errorf("%s: %d counted as dropped, want %d", tt.name, n, tt.droppedBig)
		}
	}
}

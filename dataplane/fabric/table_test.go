package fabric

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"corax/dataplane"
)

// TestLookupAgainstScan compares the table with a scan over all routes.
func TestLookupAgainstScan(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	// Few bits vary, so that prefixes nest and hits are frequent.
	addr := func() netip.Addr {
		x := rnd.Uint32() & 0x0f0f0f0f
		if rnd.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(x), byte(x >> 8), byte(x >> 16)})
		}
		return netip.AddrFrom16([16]byte{0xfd, byte(x), byte(x >> 8), byte(x >> 16), byte(x >> 24), 15: byte(x)})
	}
	for round := range 20 {
		var cfg dataplane.Config
		for len(cfg.Routes) < 300 {
			a := addr()
			p := netip.PrefixFrom(a, rnd.IntN(a.BitLen()+1)).Masked()
			if slices.ContainsFunc(cfg.Routes, func(r dataplane.Route) bool { return r.Prefix == p }) {
				continue
			}
			cfg.Routes = append(cfg.Routes, dataplane.Route{Prefix: p, Via: dataplane.ViaWireGuard, MTU: 576 + rnd.IntN(1000)})
		}
		f := New(Config{})
		if err := f.Apply(cfg, Outputs{}); err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			a := addr()
			var want dataplane.Route
			ok := false
			for _, r := range cfg.Routes {
				if r.Prefix.Contains(a) && (!ok || r.Prefix.Bits() > want.Prefix.Bits()) {
					want, ok = r, true
				}
			}
			got, gotOK := f.Lookup(a)
			if got != want || gotOK != ok {
				t.Fatalf("round %d: Lookup(%v) is %+v, %v; want %+v, %v", round, a, got, gotOK, want, ok)
			}
		}
	}
}

// TestApplyBadConfig: what is wrong is named, dropped closed, and harms nothing
// else.
func TestApplyBadConfig(t *testing.T) {
	p := netip.MustParsePrefix
	cfg := gatewayConfig()
	cfg.Self.MTU = 100
	cfg.Self.Subnets = append(cfg.Self.Subnets, netip.Prefix{})
	cfg.Routes = append(cfg.Routes,
		dataplane.Route{Via: dataplane.ViaTUN},
		dataplane.Route{Prefix: p("10.2.0.0/16"), Via: dataplane.ViaTUN},
		dataplane.Route{Prefix: p("10.2.5.0/24"), Via: dataplane.ViaVXLAN},
		dataplane.Route{Prefix: p("10.2.6.0/24"), Via: 77},
		dataplane.Route{Prefix: p("10.2.7.0/24"), Via: dataplane.ViaWireGuard, MTU: 10},
		dataplane.Route{Prefix: p("::ffff:10.2.0.0/112"), Via: dataplane.ViaWireGuard},
	)
	cfg.VTEPs = append(cfg.VTEPs,
		dataplane.VTEP{},
		dataplane.VTEP{Addr: vtepA},
		dataplane.VTEP{Addr: netip.MustParseAddr("192.168.1.9"), Overlay: netip.MustParseAddr("fd00::1")},
	)
	f := New(Config{})
	err := f.Apply(cfg, Outputs{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"fabric: node: MTU 100 is below 576",
		"own subnet",
		"invalid Prefix: not a usable prefix",
		"10.2.0.0/16: named twice",
		"10.2.5.0/24: via VXLAN without a VTEP",
		"10.2.6.0/24: unknown way 77",
		"10.2.7.0/24: MTU 10 is below 576",
		"::ffff:10.2.0.0/112: not a usable prefix",
		"vtep invalid IP: no address",
		"vtep 192.168.1.2: named twice",
		"overlay address fd00::1",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	for a, want := range map[string]dataplane.Via{
		"10.2.0.5": dataplane.ViaWireGuard, // the first counts
		"10.2.5.5": dataplane.ViaNone,      // and not the /16
		"10.2.6.5": dataplane.ViaNone,
		"10.2.7.5": dataplane.ViaWireGuard,
		"10.1.0.5": dataplane.ViaTUN,
	} {
		if r, ok := f.Lookup(netip.MustParseAddr(a)); !ok || r.Via != want {
			t.Errorf("Lookup(%s) is %v, %v; want %v", a, r.Via, ok, want)
		}
	}
}

func TestLookupMapped(t *testing.T) {
	w := newWorld(t)
	if r, ok := w.Lookup(netip.MustParseAddr("::ffff:10.2.0.5")); !ok || r.Via != dataplane.ViaWireGuard {
		t.Errorf("Lookup is %+v, %v", r, ok)
	}
	if r, ok := w.Lookup(overlaySelf); !ok || r.Via != dataplane.ViaNetstack {
		t.Errorf("Lookup of our overlay address is %+v, %v", r, ok)
	}
	if r, ok := w.Lookup(overlayB); !ok || r.VTEP != vtepB || r.MTU != 1230 {
		t.Errorf("Lookup of a node's overlay address is %+v, %v", r, ok)
	}
}

package hostnet

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func TestPrefixes(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	addAddr(t, "corax0", "198.51.100.1/32")
	addAddr(t, "lo", "203.0.113.5/32")
	addAddr(t, "eth0", "fe80::5/64")
	got, err := Prefixes("corax0")
	must(t, err)
	var text []string
	for _, p := range got {
		text = append(text, p.String())
	}
	want := []string{"10.10.0.1/24", "192.0.2.10/24", "2001:db8::10/64", "fd10:10::1/64"}
	if d := cmp.Diff(want, text); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestLinkMTU(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	l, err := netlink.LinkByName("cni0")
	must(t, err)
	must(t, netlink.LinkSetMTU(l, 1442))
	for ip, want := range map[string]int{"192.0.2.10": 1500, "::ffff:192.0.2.10": 1500, "10.10.0.1": 1442, "fd10:10::1": 1442, "127.0.0.1": 65536} {
		if got, err := LinkMTU(netip.MustParseAddr(ip)); err != nil || got != want {
			t.Errorf("LinkMTU(%s) = %d, %v; want %d", ip, got, err, want)
		}
	}
	if got, err := LinkMTU(netip.MustParseAddr("192.0.2.11")); err == nil {
		t.Errorf("LinkMTU of an address of nobody = %d", got)
	}
}

package hostnet

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addDefault adds a default route through eth0; via may be empty.
func addDefault(t *testing.T, via string, metric int) *netlink.Route {
	t.Helper()
	r := &netlink.Route{Gw: net.ParseIP(via), LinkIndex: index(t, "eth0"), Priority: metric}
	if via == "" {
		r.Dst = ipNet("0.0.0.0/0")
		r.Scope = netlink.SCOPE_LINK
	}
	must(t, netlink.RouteAdd(r))
	return r
}

func TestDefaultRouters(t *testing.T) {
	newHostNS(t)
	addVeth(t, "eth1", "wan1")
	up(t, "wan1")
	addAddr(t, "eth1", "198.51.100.10/24")

	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{"one of each family", func() {}, []string{"192.0.2.1", "2001:db8::1"}},
		{"by metric", func() {
			addDefault(t, "192.0.2.3", 300)
			addDefault(t, "192.0.2.2", 200)
			addDefault(t, "2001:db8::2", 512) // the other one has 1024
		}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::2", "2001:db8::1"}},
		{
			"link-local", func() { addDefault(t, "fe80::1", 100) },
			[]string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "fe80::1%eth0", "2001:db8::2", "2001:db8::1"},
		},
		{"what is no router", func() {
			addDefault(t, "", 50) // on the link
			must(t, netlink.RouteAdd(&netlink.Route{Dst: ipNet("::/0"), Type: unix.RTN_UNREACHABLE, Priority: 4096}))
			must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("192.0.2.77"), LinkIndex: index(t, "eth0"), Table: 77}))
			must(t, netlink.RouteAdd(&netlink.Route{Dst: ipNet("10.0.0.0/8"), Gw: net.ParseIP("192.0.2.78"), LinkIndex: index(t, "eth0")}))
		}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "fe80::1%eth0", "2001:db8::2", "2001:db8::1"}},
		{"several next hops, one twice", func() {
			must(t, netlink.RouteAdd(&netlink.Route{Dst: ipNet("0.0.0.0/0"), Priority: 250, MultiPath: []*netlink.NexthopInfo{
				{Gw: net.ParseIP("198.51.100.1"), LinkIndex: index(t, "eth1")},
				{Gw: net.ParseIP("192.0.2.2"), LinkIndex: index(t, "eth0")},
			}}))
		}, []string{"192.0.2.1", "192.0.2.2", "198.51.100.1", "192.0.2.3", "fe80::1%eth0", "2001:db8::2", "2001:db8::1"}},
		{"IPv4 over IPv6", func() {
			must(t, netlink.RouteAdd(&netlink.Route{
				Dst: ipNet("0.0.0.0/0"), Priority: 10, LinkIndex: index(t, "eth1"),
				Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("fe80::9")},
			}))
		}, []string{"192.0.2.1", "fe80::9%eth1", "192.0.2.2", "198.51.100.1", "192.0.2.3", "fe80::1%eth0", "2001:db8::2", "2001:db8::1"}},
		{"a link down", func() {
			l, err := netlink.LinkByName("eth0")
			must(t, err)
			must(t, netlink.LinkSetDown(l))
		}, []string{"fe80::9%eth1", "198.51.100.1"}},
		{"none", func() {
			l, err := netlink.LinkByName("eth1")
			must(t, err)
			must(t, netlink.LinkDel(l))
		}, nil},
	}
	for _, s := range steps {
		s.do()
		var got []string
		for _, a := range DefaultRouters() {
			got = append(got, a.String())
		}
		if diff := cmp.Diff(s.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

// rtmsg is a route's header and its attributes.
func rtmsg(family, dstLen, table, typ uint8, flags byte, attributes ...[]byte) []byte {
	b := []byte{family, dstLen, 0, 0, table, 0, 0, typ, flags, 0, 0, 0}
	for _, a := range attributes {
		b = append(b, a...)
	}
	return b
}

func rta(typ byte, value ...byte) []byte {
	b := append([]byte{byte(4 + len(value)), 0, typ, 0}, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func FuzzDecodeDefault(f *testing.F) {
	gateway := rta(unix.RTA_GATEWAY, 192, 0, 2, 1)
	link := rta(unix.RTA_OIF, 2, 0, 0, 0)
	f.Add(rtmsg(unix.AF_INET, 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, 0, gateway, link))
	f.Add(rtmsg(unix.AF_INET, 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, unix.RTNH_F_LINKDOWN, gateway, link))
	f.Add(rtmsg(unix.AF_INET, 8, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, 0, gateway, link))
	f.Add(rtmsg(unix.AF_INET, 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, 0, rta(unix.RTA_VIA, 10, 0, 0xfe, 0x80), link))
	hop := append([]byte{16, 0, 0, 0, 2, 0, 0, 0}, gateway...)
	f.Add(rtmsg(unix.AF_INET, 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, 0, rta(unix.RTA_MULTIPATH, append(hop, hop...)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		rs, ok := decodeDefault(b)
		if len(rs) > 0 && (!ok || len(b) < unix.SizeofRtMsg || b[1] != 0) {
			t.Errorf("%x: %v, %t", b, rs, ok)
		}
		if len(rs) > 1+len(b)/unix.SizeofRtNexthop {
			t.Errorf("%x: %d next hops", b, len(rs))
		}
	})
}

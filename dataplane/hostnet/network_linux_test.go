package hostnet

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// testQuiet keeps the tests short.
const testQuiet = 80 * time.Millisecond

// startWatchNetwork runs WatchNetwork in the namespace and returns what receives
// a value per call.
func startWatchNetwork(t *testing.T, ns int) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	calls, done := make(chan struct{}, 64), make(chan error, 1)
	go func() {
		done <- inNS(ns, func() error { return watchNetwork(ctx, "corax0", testQuiet, func() { calls <- struct{}{} }) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("WatchNetwork: %v", err)
		}
	})
	// It listens once it reports an address that the test adds.
	for i := 1; ; i++ {
		addAddr(t, "eth0", fmt.Sprintf("203.0.113.%d/32", i))
		select {
		case <-calls:
			return calls
		case <-time.After(4 * testQuiet):
			if i > 30 {
				t.Fatal("WatchNetwork never called")
			}
		}
	}
}

// settled waits until what was done before has been delivered.
func settled(calls <-chan struct{}) {
	for {
		select {
		case <-calls:
		case <-time.After(2 * testQuiet):
			return
		}
	}
}

func delAddr(t *testing.T, link, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	must(t, err)
	l, err := netlink.LinkByName(link)
	must(t, err)
	must(t, netlink.AddrDel(l, a))
}

// churn brings pods and takes them away again, as a CNI does: a link each, with
// link-local addresses only, a port of the bridge or with routes of its own.
func churn(t *testing.T) {
	t.Helper()
	bridge, err := netlink.LinkByName("cni0")
	must(t, err)
	for i := range 8 {
		name := fmt.Sprintf("veth%d", i)
		addVeth(t, name, fmt.Sprintf("pod%d", i))
		up(t, fmt.Sprintf("pod%d", i))
		addAddr(t, name, fmt.Sprintf("fe80::%d/64", 100+i))
		addAddr(t, name, "169.254.1.1/32")
		for _, dst := range []string{fmt.Sprintf("10.10.0.%d/32", 10+i), fmt.Sprintf("fd10:10::%d/128", 10+i)} {
			must(t, netlink.RouteAdd(&netlink.Route{Dst: ipNet(dst), LinkIndex: index(t, name), Scope: netlink.SCOPE_LINK}))
		}
		l, err := netlink.LinkByName(name)
		must(t, err)
		if i%2 == 0 {
			must(t, netlink.LinkSetMaster(l, bridge))
		}
	}
	for i := range 8 {
		l, err := netlink.LinkByName(fmt.Sprintf("veth%d", i))
		must(t, err)
		must(t, netlink.LinkDel(l))
	}
}

func TestWatchNetwork(t *testing.T) {
	host := newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	h := newHost(t, Config{})
	calls := startWatchNetwork(t, host)

	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	wan0, err := netlink.LinkByName("wan0")
	must(t, err)
	old := &netlink.Route{Dst: ipNet("0.0.0.0/0"), Gw: net.ParseIP("192.0.2.1"), LinkIndex: eth0.Attrs().Index}
	steps := []struct {
		name string
		do   func()
		want bool
	}{
		{"address added", func() { addAddr(t, "eth0", "192.0.2.11/24") }, true},
		{"address removed", func() { delAddr(t, "eth0", "192.0.2.11/24") }, true},
		{"IPv6 address added", func() { addAddr(t, "eth0", "2001:db8::11/64") }, true},
		{"what the agent does", func() {
			apply(t, h, testState())
			addAddr(t, "corax0", "10.99.0.1/24")
			must(t, netlink.RouteAdd(&netlink.Route{Dst: ipNet("0.0.0.0/0"), LinkIndex: index(t, "corax0"), Priority: 900, Scope: netlink.SCOPE_LINK}))
		}, false},
		{"pods come and go", func() { churn(t) }, false},
		{"neither address nor default route", func() {
			must(t, netlink.NeighSet(&netlink.Neigh{
				LinkIndex: eth0.Attrs().Index, State: unix.NUD_PERMANENT, IP: net.IPv4(192, 0, 2, 1), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1},
			}))
			must(t, netlink.RouteAdd(&netlink.Route{Dst: ipNet("10.77.0.0/16"), Gw: net.ParseIP("192.0.2.1"), LinkIndex: eth0.Attrs().Index}))
			must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("192.0.2.1"), LinkIndex: eth0.Attrs().Index, Table: 77}))
			must(t, netlink.LinkSetMTU(eth0, 1400))
			// A Service address of kube-proxy: its link is never up.
			must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "kube-ipvs0"}}))
			addAddr(t, "kube-ipvs0", "10.96.0.1/32")
			addAddr(t, "cni0", "192.0.2.10/32") // known already
		}, false},
		{"taken back", func() {
			addAddr(t, "eth0", "192.0.2.12/24")
			must(t, netlink.RouteDel(old))
			must(t, netlink.RouteAdd(old))
			delAddr(t, "eth0", "192.0.2.12/24")
		}, false},
		{"other default router", func() {
			r := *old
			r.Gw = net.ParseIP("192.0.2.2")
			must(t, netlink.RouteReplace(&r))
			old = &r
		}, true},
		{"other metric", func() {
			r := *old
			r.Priority = 100
			must(t, netlink.RouteAdd(&r))
			must(t, netlink.RouteDel(old))
		}, true},
		{"IPv6 default route gone", func() {
			must(t, netlink.RouteDel(&netlink.Route{Dst: ipNet("::/0"), Gw: net.ParseIP("2001:db8::1"), LinkIndex: eth0.Attrs().Index}))
		}, true},
		{"cable pulled", func() { must(t, netlink.LinkSetDown(wan0)) }, true},
		{"and plugged in", func() { must(t, netlink.LinkSetUp(wan0)) }, true},
		{"link down", func() { must(t, netlink.LinkSetDown(eth0)) }, true},
		{"link up", func() { must(t, netlink.LinkSetUp(eth0)) }, true},
		{"link gone", func() { must(t, netlink.LinkDel(eth0)) }, true},
	}
	for _, s := range steps {
		settled(calls)
		s.do()
		wait := 5 * time.Second
		if !s.want {
			wait = 4 * testQuiet
		}
		select {
		case <-calls:
			if !s.want {
				t.Errorf("%s: called", s.name)
			}
		case <-time.After(wait):
			if s.want {
				t.Errorf("%s: not called", s.name)
			}
		}
	}
}

// TestNetworkConcerns: a CNI's events are not even worth a look.
func TestNetworkConcerns(t *testing.T) {
	w := newNetworkWatcher("corax0", testQuiet)
	w.links = map[int32]uint32{2: unix.IFF_UP | unix.IFF_RUNNING}
	link := func(family uint8, index byte, flags byte) []byte {
		return []byte{family, 0, 0, 0, index, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0}
	}
	const running = unix.IFF_UP | unix.IFF_RUNNING
	for _, tt := range []struct {
		name string
		typ  uint16
		msg  []byte
		want bool
	}{
		{"new link", unix.RTM_NEWLINK, link(unix.AF_UNSPEC, 3, running), false},
		{"unknown link gone", unix.RTM_DELLINK, link(unix.AF_UNSPEC, 3, 0), false},
		{"link as before", unix.RTM_NEWLINK, link(unix.AF_UNSPEC, 2, running|unix.IFF_BROADCAST), false},
		{"link without carrier", unix.RTM_NEWLINK, link(unix.AF_UNSPEC, 2, unix.IFF_UP), true},
		{"link down", unix.RTM_NEWLINK, link(unix.AF_UNSPEC, 2, 0), true},
		{"link gone", unix.RTM_DELLINK, link(unix.AF_UNSPEC, 2, running), true},
		{"bridge port", unix.RTM_DELLINK, link(unix.AF_BRIDGE, 2, running), false},
		{"short link", unix.RTM_NEWLINK, link(unix.AF_UNSPEC, 2, 0)[:15], false},
		{"global address", unix.RTM_NEWADDR, []byte{unix.AF_INET, 32, 0, 0, 9, 0, 0, 0}, true},
		{"address gone", unix.RTM_DELADDR, []byte{unix.AF_INET, 32, 0, 0, 9, 0, 0, 0}, true},
		{"link-local address", unix.RTM_NEWADDR, []byte{unix.AF_INET6, 64, 0, unix.RT_SCOPE_LINK, 2, 0, 0, 0}, false},
		{"short address", unix.RTM_NEWADDR, []byte{unix.AF_INET, 32, 0, 0}, false},
		{"default route", unix.RTM_NEWROUTE, rtmsg(unix.AF_INET, 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, 0), true},
		{"dead default route", unix.RTM_NEWROUTE, rtmsg(unix.AF_INET, 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, unix.RTNH_F_DEAD), true},
		{"default route gone", unix.RTM_DELROUTE, rtmsg(unix.AF_INET6, 0, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, 0), true},
		{"host route", unix.RTM_NEWROUTE, rtmsg(unix.AF_INET, 32, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, 0), false},
		{"our table", unix.RTM_NEWROUTE, rtmsg(unix.AF_INET, 0, 0, unix.RTN_UNICAST, 0, rta(unix.RTA_TABLE, Table&0xff, Table>>8, 0, 0)), false},
		{"neighbour", unix.RTM_NEWNEIGH, []byte{unix.AF_INET, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0}, false},
	} {
		if got := w.concerns(event(tt.typ, tt.msg)); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

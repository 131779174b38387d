package hostnet

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"corax/dataplane"
)

func TestApplyAndCloseTouchOnlyOurs(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addChain(t, nftables.TableFamilyIPv4, "filter", "FORWARD", nftables.ChainTypeFilter,
		nftables.ChainHookForward, 0, nftables.ChainPolicyDrop, accept("docker0"))
	before := hostDump(t)
	addTUN(t, "corax0")
	h := newHost(t, Config{})
	apply(t, h, testState())

	during := hostDump(t)
	for line := range strings.Lines(before) {
		if !strings.Contains(during, line) {
			t.Errorf("gone after Apply: %s", line)
		}
	}
	for line := range strings.Lines(during) {
		ours := strings.Contains(line, "corax") || strings.Contains(line, "protocol 67") ||
			strings.HasPrefix(line, "set pods") || strings.HasPrefix(line, "chain postrouting nat 4 90")
		if !ours && !strings.Contains(before, line) {
			t.Errorf("new after Apply and not marked as ours: %s", line)
		}
	}
	for _, want := range []string{
		"link corax0 tuntap mtu 1408 up true {v4:true forwarding:1 rpFilter:2 v6:true addrGen:1}",
		"route table 9027 10.20.0.0/16 dev 5 type 1 protocol 67 metric 0 src 10.10.0.1 mtu 1360",
		"route table 9027 10.20.0.0/16 dev 0 type 7 protocol 67 metric 4278198272 src <nil> mtu 0",
		"route table 9027 fd10:20::/48 dev 5 type 1 protocol 67 metric 1024 src fd10:10::1 mtu 1280",
		"route table 9027 fd10:20::/48 dev 1 type 7 protocol 67 metric 4278198272 src <nil> mtu 0",
		"rule family 2 protocol 67 mark 0 ip rule 100: from all to all table 9027",
		"rule family 10 protocol 67 mark 0 ip rule 100: from all to all table 9027",
	} {
		if !strings.Contains(during, want) {
			t.Errorf("missing after Apply: %s\n%s", want, during)
		}
	}

	must(t, h.Close())
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("after Close (-before +after):\n%s", d)
	}
	if _, err := h.Apply(context.Background(), testState()); !errors.Is(err, ErrClosed) {
		t.Errorf("Apply after Close: %v, want ErrClosed", err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestSecondApplyWritesNothing(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	addChain(t, nftables.TableFamilyINet, "fw", "fwd", nftables.ChainTypeFilter,
		nftables.ChainHookForward, 0, nftables.ChainPolicyDrop)
	h := newHost(t, Config{})
	apply(t, h, testState())

	events, before := countWrites(t), hostDump(t)
	gen := nftGeneration(t)
	apply(t, h, testState())
	if got := nftGeneration(t); got != gen {
		t.Errorf("nftables generation went from %d to %d", gen, got)
	}
	if n := events(); n != 0 {
		t.Errorf("%d netlink events during the second Apply, want none", n)
	}

	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("after the second Apply (-before +after):\n%s", d)
	}

	s := testState()
	s.Routes[0].MTU = 1184
	apply(t, h, s)
	if n := events(); n != 1 {
		t.Errorf("%d netlink events for one changed route, want 1", n)
	}
	if got := nftGeneration(t); got != gen {
		t.Errorf("a changed route made nftables generation %d of %d", got, gen)
	}
}

// countWrites returns a func that counts the events of our table, of rules, and
// of device settings since its last call. Links also report what the kernel
// does by itself.
func countWrites(t *testing.T) func() int {
	t.Helper()
	s, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
	must(t, err)
	t.Cleanup(s.Close)
	// Events are queued before the write returns, so this is only the end.
	must(t, s.SetReceiveTimeout(&unix.Timeval{Usec: 50_000}))
	return func() (n int) {
		for {
			msgs, _, err := s.Receive()
			if errors.Is(err, unix.EAGAIN) {
				return n
			}
			must(t, err)
			for _, m := range msgs {
				_, ours := decodeRoute(m.Data, Table)
				if m.Header.Type != unix.RTM_NEWROUTE && m.Header.Type != unix.RTM_DELROUTE || ours {
					n++
				}
			}
		}
	}
}

func nftGeneration(t *testing.T) uint32 {
	t.Helper()
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddRawData(make([]byte, 4)) // struct nfgenmsg
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	must(t, err)
	for typ, v := range attrs(msgs[0][4:]) {
		if typ == unix.NFTA_GEN_ID {
			return binary.BigEndian.Uint32(v)
		}
	}
	t.Fatal("no generation")
	return 0
}

func TestApplyHeals(t *testing.T) {
	breaks := map[string]func(t *testing.T){
		"route deleted": func(t *testing.T) {
			must(t, netlink.RouteDel(&netlink.Route{Table: Table, Dst: ipNet("10.20.0.0/16"), LinkIndex: index(t, "corax0"), Scope: netlink.SCOPE_LINK}))
		},
		"route changed": func(t *testing.T) {
			must(t, netlink.RouteReplace(&netlink.Route{
				Table: Table, Dst: ipNet("10.20.0.0/16"), LinkIndex: index(t, "corax0"), Protocol: Protocol, MTU: 900, Scope: netlink.SCOPE_LINK,
			}))
		},
		"stray route of ours": func(t *testing.T) {
			must(t, netlink.RouteAdd(&netlink.Route{Table: Table, Dst: ipNet("10.99.0.0/16"), LinkIndex: index(t, "eth0"), Protocol: Protocol}))
			must(t, netlink.RouteAdd(&netlink.Route{Table: Table, Dst: ipNet("10.98.0.0/16"), Type: unix.RTN_BLACKHOLE, Protocol: Protocol}))
			must(t, netlink.RouteAdd(&netlink.Route{Table: Table, Dst: ipNet("fd10:99::/48"), LinkIndex: index(t, "eth0"), Protocol: Protocol}))
		},
		"rules deleted": func(t *testing.T) {
			must(t, netlink.RuleDel(wantRule(unix.AF_INET)))
			must(t, netlink.RuleDel(wantRule(unix.AF_INET6)))
		},
		"rule at another priority": func(t *testing.T) {
			r := wantRule(unix.AF_INET)
			r.Priority = 99
			must(t, netlink.RuleAdd(r))
		},
		"device down": func(t *testing.T) { // takes its routes along
			l, err := netlink.LinkByName("corax0")
			must(t, err)
			must(t, netlink.LinkSetDown(l))
		},
		"device settings": func(t *testing.T) {
			setSysctl(t, "1", "net/ipv4/conf/corax0/rp_filter")
			setSysctl(t, "0", "net/ipv4/conf/corax0/forwarding")
			l, err := netlink.LinkByName("corax0")
			must(t, err)
			must(t, netlink.LinkSetMTU(l, 1400))
		},
		"ruleset flushed": func(t *testing.T) {
			c, err := nftables.New()
			must(t, err)
			c.DelTable(ownTable())
			must(t, c.Flush())
		},
		"nat rule deleted": func(t *testing.T) {
			c, err := nftables.New()
			must(t, err)
			ch := ownChain(ownTable())
			rules, err := c.GetRules(ch.Table, ch)
			must(t, err)
			must(t, c.DelRule(&nftables.Rule{Table: ch.Table, Chain: ch, Handle: rules[0].Handle}))
			must(t, c.Flush())
		},
		"set element added": func(t *testing.T) {
			c, err := nftables.New()
			must(t, err)
			set := &nftables.Set{Table: ownTable(), Name: "pods4", KeyType: nftables.TypeIPAddr, Interval: true}
			must(t, c.SetAddElements(set, setElements(intervals(prefixes("10.77.0.0/16")))))
			must(t, c.Flush())
		},
		"accept rules flushed": func(t *testing.T) {
			c, err := nftables.New()
			must(t, err)
			c.FlushChain(&nftables.Chain{Name: "fwd", Table: &nftables.Table{Name: "fw", Family: nftables.TableFamilyINet}})
			must(t, c.Flush())
		},
	}
	for name, harm := range breaks {
		t.Run(name, func(t *testing.T) {
			newHostNS(t)
			addBridge(t)
			addTUN(t, "corax0")
			addChain(t, nftables.TableFamilyINet, "fw", "fwd", nftables.ChainTypeFilter,
				nftables.ChainHookForward, 0, nftables.ChainPolicyDrop)
			h := newHost(t, Config{})
			apply(t, h, testState())
			want := hostDump(t)
			harm(t)
			if hostDump(t) == want {
				t.Fatal("nothing is broken")
			}
			apply(t, h, testState())
			if d := cmp.Diff(want, hostDump(t)); d != "" {
				t.Errorf("not healed (-want +got):\n%s", d)
			}
		})
	}
}

// A second agent finds what a killed one left, for another plan.
func TestTakeOverAfterCrash(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	before := hostDump(t)
	tun := addTUN(t, "corax0")
	addChain(t, nftables.TableFamilyINet, "fw", "fwd", nftables.ChainTypeFilter,
		nftables.ChainHookForward, 0, nftables.ChainPolicyDrop)
	old := testState()
	old.Subnets = prefixes("10.10.0.0/24", "10.11.0.0/24", "fd10:10::/64")
	old.Routes = append(old.Routes, dataplane.HostRoute{Prefix: netip.MustParsePrefix("10.30.0.0/16"), MTU: 1360})
	apply(t, newHost(t, Config{}), old)
	tun.Close() // the device is persistent
	if !strings.Contains(hostDump(t), "10.30.0.0/16") {
		t.Fatal("the first agent installed nothing")
	}

	apply(t, newHost(t, Config{}), testState())
	got := hostDump(t)
	must(t, newHost(t, Config{}).Close()) // a fresh process undoes it too
	c, err := nftables.New()
	must(t, err)
	if !strings.Contains(hostDump(t), "chain fwd") {
		t.Error("Close took a foreign chain along")
	}
	c.DelTable(&nftables.Table{Name: "fw", Family: nftables.TableFamilyINet})
	must(t, c.Flush())
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("after Close (-before +after):\n%s", d)
	}

	addTUN(t, "corax0")
	addChain(t, nftables.TableFamilyINet, "fw", "fwd", nftables.ChainTypeFilter,
		nftables.ChainHookForward, 0, nftables.ChainPolicyDrop)
	apply(t, newHost(t, Config{}), testState())
	// Link indices differ, that of the new device is higher.
	if d := cmp.Diff(withoutIndex(hostDump(t)), withoutIndex(got)); d != "" {
		t.Errorf("taken over (-fresh +taken over):\n%s", d)
	}
}

func withoutIndex(dump string) string {
	var out []string
	for line := range strings.Lines(dump) {
		f := strings.Fields(line)
		if i := slices.Index(f, "dev"); i >= 0 && f[0] == "route" {
			f[i+1] = "-"
		}
		out = append(out, strings.Join(f, " "))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func TestNoDeviceInstallsNothing(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	before := hostDump(t)
	apply(t, newHost(t, Config{}), testState(), "device_missing")
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("without a device (-before +after):\n%s", d)
	}
}

// When the device vanishes, packets for remote subnets must not fall through to
// the default route, not even for a subnet that comes later.
func TestDeviceGoneFailsClosed(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	h := newHost(t, Config{})
	apply(t, h, testState())
	l, err := netlink.LinkByName("corax0")
	must(t, err)
	must(t, netlink.LinkDel(l))

	expectUnreachable := func(dst string) {
		t.Helper()
		if r, err := netlink.RouteGet(netip.MustParseAddr(dst).AsSlice()); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("route to %s: %v, %v; want unreachable", dst, r, err)
		}
	}
	expectUnreachable("10.20.1.2")
	expectUnreachable("fd10:20::2")
	s := testState()
	s.Routes = append(s.Routes, dataplane.HostRoute{Prefix: netip.MustParsePrefix("10.30.0.0/16")})
	apply(t, h, s, "device_missing")
	expectUnreachable("10.20.1.2")
	expectUnreachable("10.30.1.2")
	if _, err := netlink.RouteGet(netip.MustParseAddr("10.40.1.2").AsSlice()); err != nil {
		t.Errorf("the default route does not work: %v", err)
	}
	must(t, h.Close())
	if _, err := netlink.RouteGet(netip.MustParseAddr("10.20.1.2").AsSlice()); err != nil {
		t.Errorf("after Close the default route does not work: %v", err)
	}
}

func TestProblems(t *testing.T) {
	tests := []struct {
		name   string
		cfg    Config
		before func(t *testing.T)
		state  func(s *State)
		want   []string
		mend   string
	}{
		{
			name: "forwarding off",
			before: func(t *testing.T) {
				setSysctl(t, "0", "net/ipv4/ip_forward")
				setSysctl(t, "0", "net/ipv6/conf/all/forwarding")
			},
			want: []string{"ip_forward", "ip6_forward"}, mend: "sysctl -w net.ipv4.ip_forward=1",
		},
		{
			name:   "forwarding off without own IPv6 pods",
			before: func(t *testing.T) { setSysctl(t, "0", "net/ipv6/conf/all/forwarding") },
			state:  func(s *State) { s.Subnets = s.Subnets[:1] },
		},
		{
			name:   "IPv6 off on the device",
			before: func(t *testing.T) { setSysctl(t, "1", "net/ipv6/conf/corax0/disable_ipv6") },
			want:   []string{"ip6_disabled"}, mend: "sysctl -w net.ipv6.conf.corax0.disable_ipv6=0",
		},
		{
			name:  "no host source",
			state: func(s *State) { s.Subnets = prefixes("10.66.0.0/24") },
			want:  []string{"host_source"},
		},
		{
			name: "host source outside the own subnets",
			cfg:  Config{HostSource: []netip.Addr{netip.MustParseAddr("192.0.2.10")}},
			want: []string{"host_source"},
		},
		{
			name: "default route",
			state: func(s *State) {
				s.Routes = append(s.Routes, dataplane.HostRoute{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, dataplane.HostRoute{})
			},
			want: []string{"bad_route", "bad_route"},
		},
		{
			name: "chain that rejects at its end",
			before: func(t *testing.T) {
				addChain(t, nftables.TableFamilyINet, "firewalld", "filter_FORWARD", nftables.ChainTypeFilter,
					nftables.ChainHookForward, 10, nftables.ChainPolicyAccept, accept("eth1"), reject())
			},
			want: []string{"forward_drop"}, mend: "nft insert rule inet firewalld filter_FORWARD iifname corax0 accept",
		},
		{
			name: "chain that rejects at its end and knows the device",
			before: func(t *testing.T) {
				addChain(t, nftables.TableFamilyINet, "firewalld", "filter_FORWARD", nftables.ChainTypeFilter,
					nftables.ChainHookForward, 10, nftables.ChainPolicyAccept, accept("corax0"), reject())
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			newHostNS(t)
			addBridge(t)
			addTUN(t, "corax0")
			if tt.before != nil {
				tt.before(t)
			}
			s := testState()
			if tt.state != nil {
				tt.state(&s)
			}
			problems := apply(t, newHost(t, tt.cfg), s, tt.want...)
			if tt.mend != "" && !strings.Contains(problems[0].String(), tt.mend) {
				t.Errorf("problem %q does not say %q", problems[0], tt.mend)
			}
		})
	}
}

// Without nftables the routes still go in, and the problem says what is lost.
func TestWithoutNFT(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	before := hostDump(t)
	addTUN(t, "corax0")
	h := newHost(t, Config{})
	h.dialNFT = func() (*nftables.Conn, error) { return nil, errNoNFT }
	problems := apply(t, h, testState(), "nftables")
	if !strings.Contains(problems[0].What, errNoNFT.Error()) {
		t.Errorf("problem %q does not say why", problems[0])
	}
	if dump := hostDump(t); !strings.Contains(dump, "route table 9027 10.20.0.0/16") || strings.Contains(dump, "pods4") {
		t.Errorf("want routes and no nftables table:\n%s", dump)
	}
	must(t, h.Close())
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("after Close (-before +after):\n%s", d)
	}
}

// A foreign route of the same key is left alone, and does not stop the others.
func TestForeignRouteInOurTable(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	foreign := &netlink.Route{Table: Table, Dst: ipNet("10.20.0.0/16"), LinkIndex: index(t, "eth0"), Protocol: unix.RTPROT_STATIC, Scope: netlink.SCOPE_LINK}
	must(t, netlink.RouteAdd(foreign))
	h := newHost(t, Config{})
	if _, err := h.Apply(context.Background(), testState()); !errors.Is(err, unix.EEXIST) {
		t.Errorf("Apply: %v, want EEXIST", err)
	}
	dump := hostDump(t)
	for _, want := range []string{"route table 9027 10.20.0.0/16 dev 3 type 1 protocol 4", "route table 9027 fd10:20::/48 dev 5"} {
		if !strings.Contains(dump, want) {
			t.Errorf("missing %q in\n%s", want, dump)
		}
	}
	must(t, h.Close())
	must(t, netlink.RouteDel(foreign))
}

// A container may have no other way to set the device up than netlink.
func TestDeviceSettingsByNetlink(t *testing.T) {
	newHostNS(t)
	addTUN(t, "corax0")
	setSysctl(t, "1", "net/ipv4/conf/corax0/rp_filter")
	setSysctl(t, "0", "net/ipv4/conf/corax0/forwarding")
	c, err := openRtnl()
	must(t, err)
	defer c.close()
	must(t, c.setConf(index(t, "corax0")))
	for name, want := range map[string]string{"rp_filter": "2", "forwarding": "1"} {
		if got := readSysctl("net/ipv4/conf/corax0", name); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
}

func TestProbe(t *testing.T) {
	newHostNS(t)
	if got := Probe(); len(got) != 0 {
		t.Errorf("problems %v on a host that is right", got)
	}
	setSysctl(t, "0", "net/ipv4/ip_forward")
	setSysctl(t, "0", "net/ipv6/conf/all/forwarding")
	if got := Probe(); len(got) != 2 {
		t.Errorf("problems %v, want two", got)
	}
}

func TestCancelledApply(t *testing.T) {
	newHostNS(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := newHost(t, Config{}).Apply(ctx, testState()); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply: %v, want context.Canceled", err)
	}
}

func TestHostSourceFollowsTheBridge(t *testing.T) {
	newHostNS(t)
	addTUN(t, "corax0")
	h := newHost(t, Config{})
	apply(t, h, testState(), "host_source", "host_source")
	if a, why := h.HostSource(false); a.IsValid() || why == "" {
		t.Errorf("HostSource = %v, %q; want none and why", a, why)
	}
	addBridge(t) // the CNI makes it with the first pod
	apply(t, h, testState())
	for v6, want := range map[bool]string{false: "10.10.0.1", true: "fd10:10::1"} {
		if a, why := h.HostSource(v6); a.String() != want || why != "address of cni0" {
			t.Errorf("HostSource(%t) = %v, %q; want %s of cni0", v6, a, why, want)
		}
	}
	l, err := netlink.LinkByName("cni0")
	must(t, err)
	must(t, netlink.LinkDel(l))
	apply(t, h, testState(), "host_source", "host_source")
	if dump := hostDump(t); strings.Contains(dump, "src 10.10.0.1") || strings.Contains(dump, "immediate") {
		t.Errorf("the old source is still there:\n%s", dump)
	}
}

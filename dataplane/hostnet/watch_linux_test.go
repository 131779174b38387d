package hostnet

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func event(typ uint16, b []byte) syscall.NetlinkMessage {
	return syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: typ}, Data: b}
}

// startWatch runs Watch in the namespace and returns what receives a value per
// call of changed.
func startWatch(t *testing.T, h *Host, ns int) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	calls, done := make(chan struct{}, 64), make(chan error, 1)
	go func() {
		done <- inNS(ns, func() error { return h.Watch(ctx, func() { calls <- struct{}{} }) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	// Watch listens once it reports an address that the test adds.
	for i := byte(1); ; i++ {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(203, 0, 113, i), Mask: net.CIDRMask(32, 32)}}
		l, err := netlink.LinkByName("eth0")
		must(t, err)
		must(t, netlink.AddrAdd(l, a))
		select {
		case <-calls:
			return calls
		case <-time.After(300 * time.Millisecond):
			if i > 30 {
				t.Fatal("Watch never called")
			}
		}
	}
}

func TestWatch(t *testing.T) {
	host := newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	fwd := addChain(t, nftables.TableFamilyINet, "fw", "fwd", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, nftables.ChainPolicyDrop)
	h := newHost(t, Config{})
	apply(t, h, testState())
	calls := startWatch(t, h, host)

	bridge, err := netlink.LinkByName("cni0")
	must(t, err)
	corax, err := netlink.LinkByName("corax0")
	must(t, err)
	nft := func(f func(c *nftables.Conn)) {
		c, err := nftables.New()
		must(t, err)
		f(c)
		must(t, c.Flush())
	}
	steps := []struct {
		name string
		do   func()
		want bool
	}{
		{"our route deleted", func() {
			must(t, netlink.RouteDel(&netlink.Route{Table: Table, Dst: ipNet("10.20.0.0/16"), LinkIndex: corax.Attrs().Index, Scope: netlink.SCOPE_LINK}))
		}, true},
		{"foreign route", func() {
			must(t, netlink.RouteAdd(&netlink.Route{Dst: ipNet("10.77.0.0/16"), LinkIndex: bridge.Attrs().Index}))
		}, false},
		{"our rule deleted", func() { must(t, netlink.RuleDel(wantRule(unix.AF_INET6))) }, true},
		{"foreign rule", func() {
			r := netlink.NewRule()
			r.Priority, r.Table = 500, 77
			must(t, netlink.RuleAdd(r))
		}, false},
		{"address of the host", func() { addAddr(t, "cni0", "10.10.0.2/24") }, true},
		{"link-local address", func() { addAddr(t, "cni0", "fe80::77/64") }, false},
		{"MTU of a link", func() { must(t, netlink.LinkSetMTU(bridge, 1400)) }, true},
		{"device down", func() { must(t, netlink.LinkSetDown(corax)) }, true},
		{"our nftables table deleted", func() { nft(func(c *nftables.Conn) { c.DelTable(ownTable()) }) }, true},
		{"foreign nftables rule added", func() {
			nft(func(c *nftables.Conn) { c.AddRule(&nftables.Rule{Table: fwd.Table, Chain: fwd, Exprs: accept("eth9")}) })
		}, false},
		{"foreign chain flushed with our rules", func() { nft(func(c *nftables.Conn) { c.FlushChain(fwd) }) }, true},
		{"forwarding switched off", func() { setSysctl(t, "0", "net/ipv4/ip_forward") }, true},
		{"device deleted", func() { must(t, netlink.LinkDel(corax)) }, true},
	}
	for _, s := range steps {
		drain(calls)
		s.do()
		wait := 5 * time.Second
		if !s.want {
			wait = 2 * watchQuiet
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

// drain waits until no call has come for a while: links report their operational
// state late.
func drain(calls <-chan struct{}) {
	for {
		select {
		case <-calls:
		case <-time.After(2 * watchQuiet):
			return
		}
	}
}

// A burst of events is few calls.
func TestWatchJoinsBursts(t *testing.T) {
	host := newHostNS(t)
	addTUN(t, "corax0")
	h := newHost(t, Config{})
	calls := startWatch(t, h, host)
	drain(calls)
	l, err := netlink.LinkByName("eth0")
	must(t, err)
	const n = 200
	start := time.Now()
	for i := range n {
		must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 18, 0, byte(i)), Mask: net.CIDRMask(32, 32)}}))
	}
	took := time.Since(start)
	select {
	case <-calls:
	case <-time.After(5 * time.Second):
		t.Fatal("not called")
	}
	more := 1
	for {
		select {
		case <-calls:
			more++
			continue
		case <-time.After(2 * watchQuiet):
		}
		break
	}
	if limit := 2 + int(took/watchQuiet); more > limit {
		t.Errorf("%d calls for %d events in %v, want at most %d", more, n, took, limit)
	}
}

//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// What Raven sets up on a node that is no gateway (raven 0.4.3, with its
// WireGuard driver).
const (
	ravenLink  = "raven0"
	ravenVNI   = 200
	ravenPort  = 4472
	ravenMTU   = 1420 // the WAN's - 80
	ravenMark  = 0x40
	ravenTable = 9027
	ravenPrio  = 100
)

// TestRavenNode has plain nodes without an agent, whose VXLAN is the kernel's as
// Raven sets it up: their gateway nodes do not see a difference.
func TestRavenNode(t *testing.T) {
	topo := lab.Standard(lab.ForTest(t), lab.Options{
		Edges: 1,
		Node: func(n *lab.NodeConfig) {
			n.RPFilter = 1
			if n.Name == "cloud-gw" || n.Name == "edge-a-gw" {
				n.Masquerade = lab.MasqLeavingNode
			}
		},
	})
	serveReach(t, topo)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := topo.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	for i, d := range topo.Domains {
		if err := joinRaven(d.Nodes[1], d.Gateway(), topo.Domains[1-i].Nodes); errors.Is(err, unix.EOPNOTSUPP) {
			lacking(t, "the kernel has no VXLAN device: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
		startAgent(ctx, t, d.Agents[0])
	}
	all := slices.DeleteFunc(crossings(topo), func(c crossing) bool {
		// Raven knows no IPv6, and host programs of such a node go out with
		// an address that no Gateway lists.
		return c.addr.Is6() || c.from.host && c.from.node != c.from.domain.Gateway()
	})
	if topo.Domains[1].Gateway().Detoured() {
		lab.LeftOut(t, noPingOut)
	}
	eachCrossing(t, all, 4, reachSmall)
	eachCrossing(t, all, 2, func(ctx context.Context, c crossing) error {
		_, err := c.from.Transfer(ctx, netip.AddrPortFrom(c.addr, reachPort), reachBytes)
		return err
	})
	for _, d := range topo.Domains {
		if err := pingSegment(t.Context(), d.Nodes[1], d.Gateway()); err != nil {
			t.Error(err)
		}
	}
}

// pingSegment pings the gateway node's address on the VXLAN segment from a
// Raven node, once by the permanent neighbour entry, and once by ARP.
func pingSegment(ctx context.Context, n, gw *lab.Node) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	to := ravenAddr(gw.IP)
	if _, err := n.PingUntil(ctx, to, lab.PingOptions{}); err != nil {
		return err
	}
	link, err := n.Netlink().LinkByName(ravenLink)
	if err != nil {
		return err
	}
	if err := n.Netlink().NeighDel(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_INET, IP: to.AsSlice(),
	}); err != nil {
		return fmt.Errorf("forget %s: %w", to, err)
	}
	if _, err := n.PingUntil(ctx, to, lab.PingOptions{}); err != nil {
		return fmt.Errorf("after ARP: %w", err)
	}
	return nil
}

// lacking skips the test, or fails it where everything must run.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func startAgent(ctx context.Context, t *testing.T, a *lab.Agent) {
	t.Helper()
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// joinRaven does on node n what a Raven agent does there when gw is its gateway
// node, and remote are the nodes of other domains.
func joinRaven(n, gw *lab.Node, remote []*lab.Node) error {
	link, err := addRavenLink(n, gw)
	if err != nil {
		return fmt.Errorf("raven0 on %s: %w", n.Name, err)
	}
	nl := n.Netlink()
	mark := netlink.NewRule()
	mark.Priority, mark.Mark, mark.Table, mark.Family = ravenPrio, ravenMark, ravenTable, unix.AF_INET
	if err := nl.RuleAdd(mark); err != nil {
		return fmt.Errorf("rule on %s: %w", n.Name, err)
	}
	if err := nl.RouteReplace(&netlink.Route{
		Dst:       &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
		Gw:        ravenAddr(gw.IP).AsSlice(),
		LinkIndex: link.Attrs().Index, Table: ravenTable, MTU: ravenMTU, Flags: int(netlink.FLAG_ONLINK),
	}); err != nil {
		return fmt.Errorf("route on %s: %w", n.Name, err)
	}
	var subnets []netip.Prefix
	for _, r := range remote {
		for _, s := range r.Subnets {
			if s.Addr().Is4() {
				subnets = append(subnets, s.Masked())
			}
		}
	}
	return markRaven(n, subnets)
}

// addRavenLink makes raven0 with its address, and its one static peer.
func addRavenLink(n, gw *lab.Node) (netlink.Link, error) {
	nl := n.Netlink()
	link := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: ravenLink, MTU: ravenMTU, HardwareAddr: ravenMAC(n.IP)},
		VxlanId:   ravenVNI, Port: ravenPort, Group: gw.IP.AsSlice(), Learning: false, Age: 300,
	}
	if err := nl.LinkAdd(link); err != nil {
		return nil, err
	}
	n.SetLink(ravenLink, true)
	n.Sysctl("net/ipv4/conf/"+ravenLink+"/rp_filter", "2")
	if err := nl.AddrReplace(link, &netlink.Addr{
		IPNet: &net.IPNet{IP: ravenAddr(n.IP).AsSlice(), Mask: net.CIDRMask(8, 32)},
		Scope: unix.RT_SCOPE_LINK,
	}); err != nil {
		return nil, err
	}
	for _, neigh := range []*netlink.Neigh{
		{Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, IP: gw.IP.AsSlice()},
		{Family: unix.AF_INET, IP: ravenAddr(gw.IP).AsSlice()},
	} {
		neigh.LinkIndex, neigh.State, neigh.HardwareAddr = link.Index, netlink.NUD_PERMANENT, ravenMAC(gw.IP)
		if err := nl.NeighSet(neigh); err != nil {
			return nil, err
		}
	}
	return link, n.Lab().Err()
}

// markRaven marks what goes to remote subnets, before destination NAT, as
// Raven's mangle chains and ipset do, and clears the mark in raven0, so that the
// outer packets are not steered again (Raven has a tc filter for that, which
// fewer kernels have).
func markRaven(n *lab.Node, subnets []netip.Prefix) error {
	c, err := n.NFT()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "mangle"})
	add := func(chain *nftables.Chain, match []expr.Any, mark uint32) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(match,
			&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(mark)},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
		)})
	}
	for _, chain := range []*nftables.Chain{
		{Name: "PREROUTING", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting},
		{Name: "OUTPUT", Type: nftables.ChainTypeRoute, Hooknum: nftables.ChainHookOutput},
		{Name: "POSTROUTING", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPostrouting},
	} {
		chain.Table, chain.Priority = table, nftables.ChainPriorityMangle
		c.AddChain(chain)
		if chain.Name == "POSTROUTING" {
			add(chain, toLink(ravenLink), 0)
			continue
		}
		for _, s := range subnets {
			add(chain, toSubnet(s), ravenMark)
		}
	}
	return errors.Join(c.Flush(), c.CloseLasting())
}

func toLink(name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

func toSubnet(s netip.Prefix) []expr.Any {
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - s.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: s.Addr().AsSlice()},
	}
}

// ravenAddr returns a node's address on the VXLAN segment: 240 and the last
// three octets of its own.
func ravenAddr(node netip.Addr) netip.Addr {
	b := node.As4()
	b[0] = 240
	return netip.AddrFrom4(b)
}

// ravenMAC returns a node's hardware address on the VXLAN segment.
func ravenMAC(node netip.Addr) net.HardwareAddr {
	b := ravenAddr(node).As4()
	return net.HardwareAddr{0xaa, 0x0f, b[0], b[1], b[2], b[3]}
}

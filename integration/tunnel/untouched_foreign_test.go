//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// addForeign adds what other programs might have on a node, some of it with our
// names and numbers.
func addForeign(t *testing.T, n *lab.Node) {
	t.Helper()
	addForeignRoutes(t, n)
	addForeignRules(t, n)
}

func addForeignRoutes(t *testing.T, n *lab.Node) {
	t.Helper()
	eth0 := mustLink(t, n, "eth0")
	add := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", n.Name, err)
		}
	}
	add(n.Netlink().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "docker0"}}))
	for _, r := range []netlink.Route{
		{Dst: cidr("10.99.0.0/16"), Table: 9027, LinkIndex: eth0.Attrs().Index, Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_STATIC},
		{Dst: cidr("fd99::/48"), Table: 9027, LinkIndex: eth0.Attrs().Index, Protocol: unix.RTPROT_STATIC},
		{Dst: cidr("10.98.0.0/16"), Table: 9027, Type: unix.RTN_UNREACHABLE, Priority: 7},
		{Dst: cidr("10.97.0.0/16"), Table: 9030, LinkIndex: eth0.Attrs().Index, Scope: unix.RT_SCOPE_LINK},
	} {
		add(n.Netlink().RouteAdd(&r))
	}
	for i, table := range []int{9030, 9027} {
		rule := netlink.NewRule()
		rule.Family, rule.Priority, rule.Table = netlink.FAMILY_V4, 100+i, table
		rule.Src = cidr("10.99.0.0/16")
		add(n.Netlink().RuleAdd(rule))
	}
}

// addForeignRules makes tables that carry our name in another family, or have
// our priority, comments and device in rules that are not ours.
func addForeignRules(t *testing.T, n *lab.Node) {
	t.Helper()
	c := nft(t, n)
	defer func() { _ = c.CloseLasting() }()
	comment := userdata.AppendString(nil, userdata.TypeComment, "corax")
	oifname := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte("corax0"), make([]byte, unix.IFNAMSIZ-6)...)},
	}

	same := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "corax"})
	nat := c.AddChain(&nftables.Chain{
		Table: same, Name: "postrouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityRef(90),
	})
	c.AddRule(&nftables.Rule{Table: same, Chain: nat, Exprs: append(oifname[:2:2], &expr.Counter{}), UserData: comment})

	fw := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "firewall"})
	set := &nftables.Set{Table: fw, Name: "pods4", KeyType: nftables.TypeIPAddr}
	if err := c.AddSet(set, []nftables.SetElement{{Key: []byte{10, 99, 0, 1}}}); err != nil {
		t.Fatal(err)
	}
	forward := c.AddChain(&nftables.Chain{
		Table: fw, Name: "FORWARD", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	c.AddRule(&nftables.Rule{Table: fw, Chain: forward, Exprs: append(oifname[:2:2], &expr.Counter{}), UserData: comment})
	c.AddRule(&nftables.Rule{Table: fw, Chain: forward, Exprs: []expr.Any{&expr.Counter{}}, UserData: comment})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestRavenIsRespected: beside what a Raven agent left, ours refuses to start
// and changes nothing. Told to take over it removes that and nothing else.
func TestRavenIsRespected(t *testing.T) {
	topo := lab.Standard(lab.ForTest(t), lab.Options{Edges: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := topo.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range topo.Nodes() {
		// Not the routes: table 9027 is Raven's too, and taken over whole.
		addForeignRules(t, n)
		addIPTables(t, n)
	}
	h := newHosts(t, topo, false)
	for _, n := range topo.Nodes() {
		addRaven(t, n)
	}
	raven := h.states(t)
	for name, s := range raven {
		if gone, added := difference(h.before[name], s); len(gone) != 0 || len(added) < 10 {
			t.Fatalf("%s: Raven's state is %q", name, added)
		}
	}

	for _, a := range topo.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-a.Process().Done():
		case <-ctx.Done():
			t.Fatalf("the agent on %s runs beside Raven", a.Host.Name)
		}
		if err := a.Stop(); err == nil {
			t.Errorf("the agent on %s ended with exit code 0", a.Host.Name)
		}
		if b, err := os.ReadFile(a.LogFile()); err != nil || !strings.Contains(string(b), "Raven") || !strings.Contains(string(b), "raven0") {
			t.Errorf("the agent on %s says: %s", a.Host.Name, b)
		}
	}
	h.same(t, "refused", raven)

	for _, a := range topo.Agents() {
		a.SetArgs("--take-over")
	}
	h.each(t, (*lab.Agent).Start)
	h.ready(ctx, t)
	h.check(t, "took over")
	h.each(t, (*lab.Agent).Stop)
	h.same(t, "stopped", h.before)
}

// addIPTables makes the base chains that iptables-nft leaves in place.
func addIPTables(t *testing.T, n *lab.Node) {
	t.Helper()
	c := nft(t, n)
	defer func() { _ = c.CloseLasting() }()
	mangle := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "mangle"})
	for name, hook := range map[string]*nftables.ChainHook{"PREROUTING": nftables.ChainHookPrerouting, "OUTPUT": nftables.ChainHookOutput} {
		kind := nftables.ChainTypeFilter
		if name == "OUTPUT" {
			kind = nftables.ChainTypeRoute
		}
		c.AddChain(&nftables.Chain{Table: mangle, Name: name, Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityMangle})
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

// addRaven lays what Raven's agent has on a node: its VXLAN device, rule, route
// and chains.
func addRaven(t *testing.T, n *lab.Node) {
	t.Helper()
	nl := n.Netlink()
	link := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: "raven0", MTU: 1450, HardwareAddr: net.HardwareAddr{0xaa, 0x0f, 0xf0, 0, 0, 1}},
		VxlanId:   200, Port: 4472,
	}
	if err := nl.LinkAdd(link); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("no kernel VXLAN: %v", err)
	}
	addr, err := netlink.ParseAddr("240.0.0.1/8")
	if err != nil {
		t.Fatal(err)
	}
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.Mark, rule.Table = netlink.FAMILY_V4, 100, 0x40, 9027
	err = errors.Join(nl.AddrAdd(link, addr), nl.LinkSetUp(link), nl.RuleAdd(rule), nl.RouteAdd(&netlink.Route{
		Dst: cidr("0.0.0.0/0"), Table: 9027, Gw: net.IPv4(240, 0, 0, 2), LinkIndex: mustLink(t, n, "raven0").Attrs().Index,
		Flags: int(netlink.FLAG_ONLINK), MTU: 1450,
	}))
	if err != nil {
		t.Fatal(err)
	}

	c := nft(t, n)
	defer func() { _ = c.CloseLasting() }()
	for table, jump := range map[string]struct {
		chain string
		from  []string
	}{
		"mangle": {"RAVEN-MARK-CHAIN", []string{"PREROUTING", "OUTPUT"}},
		"nat":    {"RAVEN-POSTROUTING", []string{"POSTROUTING"}},
	} {
		tbl := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: table}
		c.AddChain(&nftables.Chain{Table: tbl, Name: jump.chain})
		c.AddRule(&nftables.Rule{Table: tbl, Chain: &nftables.Chain{Name: jump.chain, Table: tbl}, Exprs: []expr.Any{&expr.Counter{}}})
		for _, from := range jump.from {
			c.InsertRule(&nftables.Rule{
				Table: tbl, Chain: &nftables.Chain{Name: from, Table: tbl},
				Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictJump, Chain: jump.chain}},
			})
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

func nft(t *testing.T, n *lab.Node) *nftables.Conn {
	t.Helper()
	c, err := n.NFT()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustLink(t *testing.T, n *lab.Node, name string) netlink.Link {
	t.Helper()
	l, err := n.Netlink().LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func cidr(s string) *net.IPNet {
	_, p, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return p
}

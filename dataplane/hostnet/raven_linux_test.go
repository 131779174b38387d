package hostnet

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

func ravenMarkRule() *netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Mark = 100, 9027, 0x40
	return r
}

// addRaven puts on the host what a Raven agent with the WireGuard driver does,
// with iptables-nft.
func addRaven(t *testing.T) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "raven0"}, VxlanId: 200, Port: 4472}))
	addAddr(t, "raven0", "240.0.2.10/8")
	up(t, "raven0")
	must(t, netlink.RouteAdd(&netlink.Route{Table: 9027, Gw: net.IPv4(240, 0, 2, 1), LinkIndex: index(t, "raven0"), Flags: int(netlink.FLAG_ONLINK)}))
	must(t, netlink.RouteAdd(&netlink.Route{Table: 9028, Dst: ipNet("10.55.0.0/16"), LinkIndex: index(t, "eth0"), Scope: netlink.SCOPE_LINK}))
	must(t, netlink.RuleAdd(ravenMarkRule()))
	vpn := netlink.NewRule()
	vpn.Priority, vpn.Table = 101, 9028
	must(t, netlink.RuleAdd(vpn))
	must(t, netlink.IpsetCreate("raven-mark-set", "hash:net", netlink.IpsetCreateOptions{}))

	c, err := nftables.New()
	must(t, err)
	mangle := &nftables.Table{Name: "mangle", Family: nftables.TableFamilyIPv4}
	c.AddTable(mangle)
	mark := c.AddChain(&nftables.Chain{Name: "RAVEN-MARK-CHAIN", Table: mangle})
	c.AddRule(&nftables.Rule{Table: mangle, Chain: mark, Exprs: []expr.Any{&expr.Counter{}}})
	must(t, c.Flush())
	addChain(t, nftables.TableFamilyIPv4, "mangle", "PREROUTING", nftables.ChainTypeFilter, nftables.ChainHookPrerouting,
		*nftables.ChainPriorityMangle, nftables.ChainPolicyAccept,
		[]expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "RAVEN-MARK-CHAIN"}}, accept("foreign0"))
}

func TestRavenIsNotDisturbed(t *testing.T) {
	tests := []struct {
		name string
		add  func(t *testing.T)
	}{
		{"raven0", func(t *testing.T) {
			must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "raven0"}}))
		}},
		{"raven-wg0", func(t *testing.T) {
			must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "raven-wg0"}}))
		}},
		{"rule", func(t *testing.T) { must(t, netlink.RuleAdd(ravenMarkRule())) }},
		{"everything", addRaven},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			newHostNS(t)
			tt.add(t)
			before := hostDump(t)
			if _, err := New(Config{}); !errors.Is(err, ErrRaven) {
				t.Errorf("New: %v, want ErrRaven", err)
			}
			if d := cmp.Diff(before, hostDump(t)); d != "" {
				t.Errorf("after New (-before +after):\n%s", d)
			}
		})
	}
}

func TestOurRuleIsNotRaven(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	apply(t, newHost(t, Config{}), testState())
	newHost(t, Config{}) // fails with ErrRaven if it took ours for Raven's
}

func TestTakeOverFromRaven(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	before := hostDump(t)
	addRaven(t)
	h := newHost(t, Config{TakeOver: true})
	if _, err := netlink.IpsetList("raven-mark-set"); err == nil {
		t.Error("raven-mark-set is still there")
	}
	c, err := nftables.New()
	must(t, err)
	if dump := nftDump(t); strings.Contains(dump, "RAVEN") || !strings.Contains(dump, "chain PREROUTING") ||
		!strings.Contains(dump, "foreign") && !strings.Contains(dump, "666f726569676e") {
		t.Errorf("want Raven's chains gone and the other rules there:\n%s", dump)
	}
	c.DelTable(&nftables.Table{Name: "mangle", Family: nftables.TableFamilyIPv4})
	must(t, c.Flush())
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("after taking over (-before Raven +after):\n%s", d)
	}
	addTUN(t, "corax0")
	apply(t, h, testState())
	must(t, netlink.IpsetCreate("raven-skip-nat-set", "hash:net", netlink.IpsetCreateOptions{}))
	apply(t, h, testState(), "raven_left")
	must(t, netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{
		Src: ipNet("10.10.0.0/24"), Dst: ipNet("10.20.0.0/24"), Dir: netlink.XFRM_DIR_OUT,
		Tmpls: []netlink.XfrmPolicyTmpl{{Src: net.IPv4(192, 0, 2, 10), Dst: net.IPv4(192, 0, 2, 20), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Reqid: 1}},
	}))
	apply(t, h, testState(), "raven_left", "raven_left")
}

package hostnet

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a Raven agent puts on a host.
const (
	ravenVPNTable = 9028
	ravenMark     = 0x40
)

var (
	ravenLinks  = []string{"raven0", "raven-wg0"}
	ravenChains = []string{"RAVEN-MARK-CHAIN", "RAVEN-POSTROUTING"}
	ravenSets   = []string{"raven-mark-set", "raven-skip-nat-set"}
)

// ravenState is what was found of a Raven agent.
type ravenState struct {
	links []netlink.Link
	rules []netlink.Rule
}

func (r ravenState) empty() bool { return len(r.links) == 0 && len(r.rules) == 0 }

// String lists what was found.
func (r ravenState) String() string {
	var parts []string
	for _, l := range r.links {
		parts = append(parts, "link "+l.Attrs().Name)
	}
	for _, rule := range r.rules {
		parts = append(parts, fmt.Sprintf("rule %d lookup %d", rule.Priority, rule.Table))
	}
	return strings.Join(parts, ", ")
}

// findRaven looks for the links and rules of a Raven agent, running or killed.
func findRaven(c *rtnl) (found ravenState, err error) {
	for _, name := range ravenLinks {
		l, err := c.deviceByName(name)
		if err != nil {
			return found, err
		}
		if l != nil {
			found.links = append(found.links, l)
		}
	}
	rules, err := dump(func() ([]netlink.Rule, error) { return c.RuleList(unix.AF_INET) })
	if noFamily(err) {
		return found, nil // no policy routing, no Raven
	}
	if err != nil {
		return found, fmt.Errorf("list rules: %w", err)
	}
	for i := range rules {
		if ravenRule(&rules[i]) {
			found.rules = append(found.rules, rules[i])
		}
	}
	return found, nil
}

func ravenRule(r *netlink.Rule) bool {
	switch r.Table {
	case Table:
		return r.Mark == ravenMark && r.Protocol != Protocol
	case ravenVPNTable:
		return r.Priority == RulePriority+1
	default:
		return false
	}
}

// remove deletes Raven's rules, links, routes, chains and sets. Chains of
// legacy iptables stay, and are reported by ravenLeft.
func (r ravenState) remove(c *rtnl, dialNFT func() (*nftables.Conn, error)) error {
	var errs []error
	for i := range r.rules {
		if err := c.RuleDel(&r.rules[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete %v: %w", r.rules[i], err))
		}
	}
	for _, l := range r.links {
		if err := c.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("delete %s: %w", l.Attrs().Name, err))
		}
	}
	for _, table := range []int{Table, ravenVPNTable} {
		routes, err := c.routes(table)
		errs = append(errs, err)
		for _, rt := range routes {
			if rt.protocol == Protocol {
				continue
			}
			if err := c.delRoute(rt, table); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("delete route %v of table %d: %w", rt.prefix, table, err))
			}
		}
	}
	conn, err := dialNFT()
	if err == nil {
		err = removeRavenChains(conn)
	}
	if !noNFTables(err) { // else the chains are legacy ones, or not there
		errs = append(errs, err)
	}
	for _, name := range ravenSets {
		// A set that is not there, or still in use by a legacy chain.
		_ = netlink.IpsetDestroy(name)
	}
	return errors.Join(errs...)
}

// removeRavenChains deletes Raven's chains and the jumps to them from the
// tables of iptables-nft.
func removeRavenChains(c *nftables.Conn) error {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	var targets []*nftables.Chain
	for _, ch := range chains {
		if slices.Contains(ravenChains, ch.Name) {
			targets = append(targets, ch)
		}
	}
	if len(targets) == 0 {
		return nil
	}
	for _, ch := range chains {
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return fmt.Errorf("list nftables chain %s: %w", ch.Name, err)
		}
		for _, r := range rules {
			if jumpsToRaven(r) {
				if err := c.DelRule(&nftables.Rule{Table: ch.Table, Chain: ch, Handle: r.Handle}); err != nil {
					return err
				}
			}
		}
	}
	for _, ch := range targets {
		c.FlushChain(ch)
		c.DelChain(ch)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete the chains %s: %w", strings.Join(ravenChains, ", "), err)
	}
	return nil
}

func jumpsToRaven(r *nftables.Rule) bool {
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		v, ok := e.(*expr.Verdict)
		return ok && slices.Contains(ravenChains, v.Chain)
	})
}

// ravenLeft says what of Raven could not be removed.
func ravenLeft() (out []Problem) {
	for _, name := range ravenSets {
		if _, err := netlink.IpsetList(name); err == nil {
			out = append(out, Problem{
				"raven_left", "Raven's ipset " + name + " is still in use by rules of iptables-legacy",
				"iptables-legacy-save | grep -v RAVEN- | iptables-legacy-restore && ipset destroy " + name,
			})
		}
	}
	// Raven's IPsec policies take packets before any route of ours does, but
	// who made a policy cannot be seen.
	policies, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
	if err == nil && slices.ContainsFunc(policies, func(p netlink.XfrmPolicy) bool { return p.Dir == netlink.XFRM_DIR_OUT && len(p.Tmpls) > 0 }) {
		out = append(out, Problem{
			Name: "raven_left",
			What: "IPsec policies are still loaded; those of Raven's pluto take packets before Corax sees them",
			Mend: "ipsec whack --shutdown",
		})
	}
	return out
}

package hostnet

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var families = [2]int{unix.AF_INET, unix.AF_INET6}

func wantRule(family int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family = family
	r.Priority = RulePriority
	r.Table = Table
	r.Protocol = Protocol
	return r
}

// plain reports whether the rule selects every packet.
func plain(r *netlink.Rule) bool {
	return r.Src == nil && r.Dst == nil && r.Mark == 0 && r.IifName == "" && r.OifName == "" &&
		!r.Invert && r.Tos == 0 && r.Sport == nil && r.Dport == nil && r.UIDRange == nil && r.IPProto == 0 && r.TunID == 0
}

// ourRule reports whether we made the rule. Kernels before 4.17 do not keep the
// protocol, so there the exact form has to do.
func ourRule(r *netlink.Rule) bool {
	if r.Table != Table {
		return false
	}
	return r.Protocol == Protocol || r.Protocol == 0 && r.Priority == RulePriority && plain(r)
}

// ourRules lists our rules of one family; a kernel without the family has none.
func (c *rtnl) ourRules(family int) ([]netlink.Rule, error) {
	rules, err := dump(func() ([]netlink.Rule, error) { return c.RuleList(family) })
	if noFamily(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	var ours []netlink.Rule
	for i := range rules {
		if ourRule(&rules[i]) {
			ours = append(ours, rules[i])
		}
	}
	return ours, nil
}

// errNoRules says that the kernel cannot route by rule.
var errNoRules = errors.New("the kernel has no policy routing (CONFIG_IP_MULTIPLE_TABLES)")

// syncRules makes sure that each family has exactly one rule of ours, or none.
// A kernel without IPv6 does not need one.
func (c *rtnl) syncRules(present bool) (changes int, err error) {
	var errs []error
	for _, family := range families {
		rules, err := c.ourRules(family)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found := false
		for i := range rules {
			r := &rules[i]
			if present && !found && r.Priority == RulePriority && plain(r) {
				found = true
				continue
			}
			if err := c.RuleDel(r); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("delete %v: %w", r, err))
				continue
			}
			changes++
		}
		if !present || found {
			continue
		}
		switch err := c.RuleAdd(wantRule(family)); {
		case err == nil:
			changes++
		case noFamily(err) && family == unix.AF_INET:
			errs = append(errs, errNoRules)
		case !noFamily(err):
			errs = append(errs, fmt.Errorf("add rule %d lookup %d: %w", RulePriority, Table, err))
		}
	}
	return changes, errors.Join(errs...)
}

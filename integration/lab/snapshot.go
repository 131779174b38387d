//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Snapshot returns the network state of a host as lines of text: links,
// addresses, routes of all tables, policy rules, permanent neighbours, the
// nftables ruleset and the settings that concern forwarding. Two snapshots of an
// unchanged host are equal; what changes by itself (counters, learned
// neighbours, index numbers, cached routes) is left out. Only rules of nftables have an
// order that matters; everything else is sorted.
func (h *Host) Snapshot() ([]string, error) {
	var lines []string
	err := h.Do(func() error {
		for _, part := range []func() ([]string, error){
			h.linkLines, h.routeLines, h.ruleLines, h.neighbourLines, h.nftLines, sysctlLines,
		} {
			l, err := part()
			if err != nil {
				return err
			}
			lines = append(lines, l...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lab: snapshot of %s: %w", h.Name, err)
	}
	return lines, nil
}

func (h *Host) linkLines() ([]string, error) {
	links, err := h.nl.LinkList()
	if err != nil {
		return nil, err
	}
	names := linkNames(links)
	var lines []string
	for _, l := range links {
		a := l.Attrs()
		lines = append(lines, fmt.Sprintf("link %s type %s mtu %d mac %s master %q up %t promisc %t",
			a.Name, l.Type(), a.MTU, a.HardwareAddr, names[a.MasterIndex], a.RawFlags&unix.IFF_UP != 0, a.Promisc != 0))
		addrs, err := h.nl.AddrList(l, unix.AF_UNSPEC)
		if err != nil {
			return nil, err
		}
		for _, addr := range addrs {
			if addr.IP.IsLinkLocalUnicast() && addr.IP.To4() == nil {
				continue // made by the kernel some time after the link is up
			}
			lines = append(lines, fmt.Sprintf("addr %s %s scope %d", a.Name, addr.IPNet, addr.Scope))
		}
	}
	slices.Sort(lines)
	return lines, nil
}

func linkNames(links []netlink.Link) map[int]string {
	names := make(map[int]string)
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names
}

func (h *Host) routeLines() ([]string, error) {
	links, err := h.nl.LinkList()
	if err != nil {
		return nil, err
	}
	names := linkNames(links)
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	var lines []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := h.nl.RouteListFiltered(family, all, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if r.Flags&unix.RTM_F_CLONED != 0 || family == unix.AF_INET6 && automatic6(r) {
				continue
			}
			dst := "default"
			if r.Dst != nil {
				dst = r.Dst.String()
			}
			lines = append(lines, fmt.Sprintf("route %s via %v dev %q src %v table %d type %d metric %d mtu %d scope %d",
				dst, r.Gw, names[r.LinkIndex], r.Src, r.Table, r.Type, r.Priority, r.MTU, r.Scope))
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// automatic6 reports link-local and multicast routes, which come and go with
// the link-local addresses.
func automatic6(r netlink.Route) bool {
	if r.Dst == nil {
		return false
	}
	ip, _ := netip.AddrFromSlice(r.Dst.IP)
	return ip.IsLinkLocalUnicast() || ip.IsMulticast()
}

func (h *Host) ruleLines() ([]string, error) {
	var lines []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := h.nl.RuleList(family)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			lines = append(lines, fmt.Sprintf("rule family %d priority %d from %v to %v iif %q oif %q mark %x table %d invert %t",
				family, r.Priority, r.Src, r.Dst, r.IifName, r.OifName, r.Mark, r.Table, r.Invert))
		}
	}
	slices.Sort(lines)
	return lines, nil
}

func (h *Host) neighbourLines() ([]string, error) {
	links, err := h.nl.LinkList()
	if err != nil {
		return nil, err
	}
	names := linkNames(links)
	neighs, err := h.nl.NeighList(0, 0)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, n := range neighs {
		if n.State&unix.NUD_PERMANENT != 0 {
			lines = append(lines, fmt.Sprintf("neigh %s %s dev %q", n.IP, n.HardwareAddr, names[n.LinkIndex]))
		}
	}
	slices.Sort(lines)
	return lines, nil
}

func (h *Host) nftLines() ([]string, error) {
	c, err := h.NFT()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.CloseLasting() }()
	tables, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(tables, func(a, b *nftables.Table) int { return strings.Compare(tableName(a), tableName(b)) })
	var lines []string
	for _, t := range tables {
		lines = append(lines, "nft table "+tableName(t))
		sets, err := setLines(c, t)
		if err != nil {
			return nil, err
		}
		lines = append(lines, sets...)
		for _, ch := range chains {
			if ch.Table.Name != t.Name || ch.Table.Family != t.Family {
				continue
			}
			l, err := chainLines(c, ch)
			if err != nil {
				return nil, err
			}
			lines = append(lines, l...)
		}
	}
	return lines, nil
}

func tableName(t *nftables.Table) string { return fmt.Sprintf("%d %s", t.Family, t.Name) }

func setLines(c *nftables.Conn, t *nftables.Table) ([]string, error) {
	sets, err := c.GetSets(t)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, s := range sets {
		elements, err := c.GetSetElements(s)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			if s.Dynamic {
				continue // packets put them there
			}
			lines = append(lines, fmt.Sprintf("nft %s set %s element %x value %x end %t", tableName(t), s.Name, e.Key, e.Val, e.IntervalEnd))
		}
		lines = append(lines, fmt.Sprintf("nft %s set %s", tableName(t), s.Name))
	}
	slices.Sort(lines)
	return lines, nil
}

func chainLines(c *nftables.Conn, ch *nftables.Chain) ([]string, error) {
	name := tableName(ch.Table) + " chain " + ch.Name
	head := "nft " + name
	if ch.Hooknum != nil && ch.Priority != nil {
		head += fmt.Sprintf(" type %s hook %d priority %d", ch.Type, *ch.Hooknum, *ch.Priority)
	}
	if ch.Policy != nil {
		head += fmt.Sprintf(" policy %d", *ch.Policy)
	}
	lines := []string{head}
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		var words []string
		for _, e := range r.Exprs {
			words = append(words, exprText(e))
		}
		line := "nft " + name + " rule " + strings.Join(words, " ")
		if len(r.UserData) > 0 {
			line += fmt.Sprintf(" comment %q", printable(r.UserData))
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// exprText renders one expression without what packets change.
func exprText(e expr.Any) string {
	if _, ok := e.(*expr.Counter); ok {
		return "counter"
	}
	v := reflect.Indirect(reflect.ValueOf(e))
	return fmt.Sprintf("%s%+v", strings.ToLower(v.Type().Name()), v.Interface())
}

func printable(b []byte) string {
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, b))
}

func sysctlLines() ([]string, error) {
	var lines []string
	for _, pattern := range []string{
		"net/ipv4/ip_forward", "net/ipv4/conf/*/rp_filter", "net/ipv4/conf/*/forwarding", "net/ipv4/conf/*/src_valid_mark",
		"net/ipv4/conf/*/accept_local", "net/ipv6/conf/*/forwarding", "net/ipv6/conf/*/disable_ipv6",
		"net/ipv4/ping_group_range", "net/ipv4/ip_local_port_range", "net/ipv4/tcp_mtu_probing",
	} {
		paths, err := filepath.Glob("/proc/sys/" + pattern)
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				continue // the link has just gone
			}
			lines = append(lines, "sysctl "+strings.TrimPrefix(p, "/proc/sys/")+" "+strings.TrimSpace(string(b)))
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// familyNumber is the AF_ constant of a family.
func familyNumber(v4 bool) int {
	if v4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

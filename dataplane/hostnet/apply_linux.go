package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/dataplane"
)

// applying is one call of Apply.
type applying struct {
	*Host
	*rtnl
	state    State
	subnets  [2][]netip.Prefix
	problems []Problem
	changes  int
	errs     []error
}

func (a *applying) problem(p ...Problem) { a.problems = append(a.problems, p...) }

func (a *applying) did(changes int, err error) {
	a.changes += changes
	if err != nil {
		a.errs = append(a.errs, err)
	}
}

func (a *applying) run(ctx context.Context) error {
	link, err := a.deviceByName(a.name)
	if err != nil {
		return err
	}
	if a.state.Off {
		return a.off(link)
	}
	if link == nil {
		a.problem(Problem{Name: "device_missing", What: "there is no device " + a.name + ": this host's pods and programs are not carried"})
		installed, err := a.installed()
		if err != nil || !installed {
			return err
		}
	}
	if link != nil {
		n, problems, err := a.syncDevice(link, a.state.MTU)
		a.did(n, err)
		a.problem(problems...)
	}
	src, err := a.chooseSources()
	a.did(0, err)
	routes := a.routable()
	a.did(a.syncRoutes(ctx, wantRoutes(routes, a.links(link, routes), a.state.MTU, src)))
	a.did(a.syncRules(true))
	if link != nil {
		a.changes += syncMTU6(link, a.state.MTU, routes)
		a.applyNFT(src)
		a.problem(legacyProblems(a.name)...)
	}
	a.problem(settingProblems(a.subnets)...)
	if a.takeOver {
		a.problem(ravenLeft()...)
	}
	if a.changes > 0 {
		a.log.Info("host changed", "changes", a.changes, "routes", len(a.state.Routes))
	}
	return errors.Join(a.errs...)
}

// links returns the device's index by family; zero where it cannot carry it.
func (a *applying) links(link netlink.Link, routes []dataplane.HostRoute) (out [2]int) {
	if link == nil {
		return out
	}
	l := link.Attrs()
	out = [2]int{l.Index, l.Index}
	need6 := slices.ContainsFunc(routes, func(r dataplane.HostRoute) bool { return r.Prefix.Addr().Is6() })
	if need6 && !a.hasIPv6(link) {
		out[1] = 0
		a.problem(Problem{
			"ip6_disabled", "IPv6 is disabled on " + l.Name + ": IPv6 subnets of other domains cannot be reached",
			"sysctl -w net.ipv6.conf." + l.Name + ".disable_ipv6=0",
		})
	}
	return out
}

// installed reports whether our rule is there: an agent with a device ran here.
func (a *applying) installed() (bool, error) {
	for _, family := range families {
		rules, err := a.ourRules(family)
		if err != nil || len(rules) > 0 {
			return len(rules) > 0, err
		}
	}
	return false, nil
}

// routable returns the routes that may be installed. A default route would cut
// the node off, control should never ask for one.
func (a *applying) routable() []dataplane.HostRoute {
	out := make([]dataplane.HostRoute, 0, len(a.state.Routes))
	for _, r := range a.state.Routes {
		if !r.Prefix.IsValid() || r.Prefix.Bits() == 0 || r.Prefix.Addr().Is4In6() {
			a.problem(Problem{Name: "bad_route", What: fmt.Sprintf("%v is not a subnet that can be routed into %s", r.Prefix, a.name)})
			continue
		}
		out = append(out, r)
	}
	return out
}

// chooseSources picks the host source of each family and keeps it for
// HostSource.
func (a *applying) chooseSources() (src [2]source, err error) {
	addrs, err := a.hostAddrs()
	for i := range src {
		src[i] = chooseSource(a.override[i], a.subnets[i], familyAddrs(addrs, i))
		switch {
		case src[i].warn != "":
			a.problem(Problem{Name: "host_source", What: src[i].warn})
		case !src[i].addr.IsValid() && len(a.subnets[i]) > 0:
			a.problem(Problem{
				Name: "host_source",
				What: fmt.Sprintf("host-network traffic is not carried over %s: %s; give one with --host-source", [2]string{"IPv4", "IPv6"}[i], src[i].why),
			})
		}
	}
	a.sourceMu.Lock()
	a.source = src
	a.sourceMu.Unlock()
	return src, err
}

func familyAddrs(addrs []hostAddr, i int) (out []hostAddr) {
	for _, a := range addrs {
		if familyIndex(a.addr) == i {
			out = append(out, a)
		}
	}
	return out
}

// hostAddrs lists the addresses of all links.
func (c *rtnl) hostAddrs() ([]hostAddr, error) {
	links, err := c.links()
	if err != nil {
		return nil, err
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return c.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make([]hostAddr, 0, len(addrs))
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		l := links[a.LinkIndex]
		if !ok || l == nil {
			continue
		}
		out = append(out, hostAddr{
			addr: ip.Unmap(), link: l.Name, up: l.RawFlags&unix.IFF_UP != 0,
			usable: a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0,
		})
	}
	return out, nil
}

// links lists the attributes of all links by index.
func (c *rtnl) links() (map[int]*netlink.LinkAttrs, error) {
	list, err := dump(c.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make(map[int]*netlink.LinkAttrs, len(list))
	for _, l := range list {
		links[l.Attrs().Index] = l.Attrs()
	}
	return links, nil
}

// applyNFT installs what needs nftables. Without it the agent goes on: routes
// carry pods of every CNI that does not masquerade.
func (a *applying) applyNFT(src [2]source) {
	c, err := a.dialNFT()
	if err == nil {
		_, err = hasTable(c)
	}
	if err != nil {
		a.problem(noNFT(err))
		return
	}
	n, err := syncNAT(c, wantNAT(a.name, a.subnets, src))
	a.changes += n
	if err != nil {
		a.problem(noNFT(err))
	}
	n, problems, err := syncForward(c, a.name)
	a.changes += n
	a.problem(problems...)
	if err != nil {
		a.problem(Problem{Name: "forward_unknown", What: fmt.Sprintf("the FORWARD chains cannot be read (%v): one that drops would go unnoticed", err)})
	}
}

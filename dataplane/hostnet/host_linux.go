package hostnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/dataplane"
)

// Host makes the host as the plan wants it, and undoes that. It holds no file
// descriptor between calls; its methods may be called from several goroutines.
type Host struct {
	log      *slog.Logger
	name     string
	override [2]netip.Addr
	takeOver bool
	dialNFT  func() (*nftables.Conn, error)

	mu     sync.Mutex // held during the whole of Apply and Close
	closed bool

	sourceMu sync.Mutex
	source   [2]source
}

// New checks that no Raven agent is on this host, or removes what it left when
// cfg.TakeOver is set. It fails with ErrRaven otherwise. Nothing of ours is
// installed before the first Apply.
func New(cfg Config) (*Host, error) {
	cfg.Name = cmp.Or(cfg.Name, DefaultName)
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{
		log:      cfg.Log.With("component", "hostnet"),
		name:     cfg.Name,
		takeOver: cfg.TakeOver,
		dialNFT:  func() (*nftables.Conn, error) { return nftables.New() },
	}
	for _, a := range cfg.HostSource {
		h.override[familyIndex(a)] = a
	}
	for i := range h.source {
		h.source[i].why = "not chosen yet"
	}
	c, err := openRtnl()
	if err != nil {
		return nil, fmt.Errorf("hostnet: %w", err)
	}
	defer c.close()
	found, err := findRaven(c)
	if err != nil {
		return nil, fmt.Errorf("hostnet: look for a Raven agent: %w", err)
	}
	if found.empty() {
		return h, nil
	}
	if !cfg.TakeOver {
		return nil, fmt.Errorf("hostnet: %w: %v", ErrRaven, found)
	}
	if err := found.remove(c, h.dialNFT); err != nil {
		return nil, fmt.Errorf("hostnet: take over from Raven: %w", err)
	}
	h.log.Info("took over from raven", "removed", found.String())
	return h, nil
}

// Apply makes the host as s says and returns what keeps it from working. It
// reads what is there and writes only differences, so it is safe to call on
// every change, on a timer and on every event of Watch. One part that fails
// does not stop the others; err joins what failed.
//
// Without the device nothing is added, but what is there stays: its unreachable
// routes keep packets from leaving in the clear until the device is back. Call
// Close to give the subnets up.
func (h *Host) Apply(ctx context.Context, s State) ([]Problem, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("hostnet: apply: %w", err)
	}
	c, err := openRtnl()
	if err != nil {
		return nil, fmt.Errorf("hostnet: apply: %w", err)
	}
	defer c.close()
	a := applying{Host: h, rtnl: c, subnets: splitFamilies(s.Subnets), state: s}
	if err := a.run(ctx); err != nil {
		return a.problems, fmt.Errorf("hostnet: apply: %w", err)
	}
	return a.problems, nil
}

// HostSource returns the address that host programs get as source on packets to
// other domains, as the last Apply chose it, and how; without one, the zero
// Addr and why there is none.
func (h *Host) HostSource(v6 bool) (addr netip.Addr, why string) {
	h.sourceMu.Lock()
	defer h.sourceMu.Unlock()
	s := h.source[0]
	if v6 {
		s = h.source[1]
	}
	return s.addr, s.why
}

// Close removes everything of ours from the host, the device too, whoever
// installed it: this Host or one before it. What is not there is no error. A
// second call does nothing.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	c, err := openRtnl()
	if err != nil {
		return fmt.Errorf("hostnet: close: %w", err)
	}
	defer c.close()
	var errs []error
	// The rules first: without them the table is out of use at once.
	_, err = c.syncRules(false)
	errs = append(errs, err)
	_, err = c.syncRoutes(context.Background(), nil)
	errs = append(errs, err, h.removeNFT(), c.removeDevice(h.name))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("hostnet: close: %w", err)
	}
	return nil
}

func (h *Host) removeNFT() error {
	c, err := h.dialNFT()
	if err != nil {
		return nil // no nftables, nothing installed
	}
	if _, err := hasTable(c); err != nil {
		return nil
	}
	return errors.Join(removeNAT(c), removeForward(c, h.name))
}

// removeDevice deletes our persistent TUN. A link of another kind under that
// name is not ours.
func (c *rtnl) removeDevice(name string) error {
	l, err := c.deviceByName(name)
	if err != nil || l == nil {
		return err
	}
	if _, ok := l.(*netlink.Tuntap); !ok {
		return nil
	}
	if err := c.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

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
		a.problem(Problem{"ip6_disabled", "IPv6 is disabled on " + l.Name + ": IPv6 subnets of other domains cannot be reached",
			"sysctl -w net.ipv6.conf." + l.Name + ".disable_ipv6=0"})
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
			a.problem(Problem{Name: "host_source",
				What: fmt.Sprintf("host-network traffic is not carried over %s: %s; give one with --host-source", [2]string{"IPv4", "IPv6"}[i], src[i].why)})
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
	links, err := dump(c.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	byIndex := make(map[int]*netlink.LinkAttrs, len(links))
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs()
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return c.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make([]hostAddr, 0, len(addrs))
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		l := byIndex[a.LinkIndex]
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

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is one machine: a network namespace, a mount namespace with its own /run
// and /etc/resolv.conf, and a thread in both.
type Host struct {
	Name string

	lab   *Lab
	dir   string
	space *space
	nl    *netlink.Handle
	netns string // file of a network namespace that was there; empty: a new one
	nat   *NAT   // of SetNAT; nil: none
	// node is the host of a pod's node; nil: h is no pod.
	node   *Host
	detour *detour // of a node; nil: none

	mu      sync.Mutex
	procs   []*Process
	closers []io.Closer
}

// Host makes a host without links besides lo. Names are unique in a lab.
func (l *Lab) Host(name string) *Host { return l.hostAt(name, "") }

// HostOf is Host with the network namespace of a process, which stays as it is when the
// host ends.
func (l *Lab) HostOf(name string, pid int) *Host {
	return l.hostAt(name, fmt.Sprintf("/proc/%d/ns/net", pid))
}

func (l *Lab) hostAt(name, netns string) *Host {
	h := &Host{Name: name, lab: l, netns: netns}
	if l.failed(nil) {
		return h
	}
	if err := h.open(); err != nil {
		l.failed(fmt.Errorf("host %s: %w", name, err))
		return h
	}
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	return h
}

func (h *Host) open() error {
	dir, err := h.lab.hostDir(h.Name)
	if err != nil {
		return err
	}
	h.dir = dir
	s, err := newSpaceAt(dir, h.netns)
	if err != nil {
		return err
	}
	h.space = s
	if err := s.do(h.prepare); err != nil {
		s.close()
		h.space = nil
		return err
	}
	return nil
}

// prepare runs on the thread of a new host. What a new namespace takes over
// from the machine is set here, so that every lab is alike.
func (h *Host) prepare() error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	h.nl = nl
	lo, err := nl.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := nl.LinkSetUp(lo); err != nil {
		return err
	}
	for _, s := range [][2]string{
		{"net/ipv4/ip_forward", "0"},
		{"net/ipv4/conf/all/rp_filter", "0"},
		{"net/ipv4/conf/default/rp_filter", "0"},
		{"net/ipv6/conf/all/accept_dad", "0"}, // addresses work at once
		{"net/ipv6/conf/default/accept_dad", "0"},
		{"net/ipv6/conf/all/accept_ra", "0"},
		{"net/ipv6/conf/default/accept_ra", "0"},
	} {
		if err := writeSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// Dir returns the directory that holds this host's files.
func (h *Host) Dir() string { return h.dir }

// Lab returns the lab that h belongs to.
func (h *Host) Lab() *Lab { return h.lab }

// Do runs f on the host's thread: in its network and mount namespaces. Calls
// come one after another, so f should be quick and must not call Do of the same
// host. Descriptors made by f may be used anywhere.
func (h *Host) Do(f func() error) error {
	if h.space == nil {
		return fmt.Errorf("lab: host %s: %w", h.Name, errSpaceClosed)
	}
	return h.space.do(f)
}

// Visit runs f on a new thread in the host's network namespace. Unlike with Do,
// f may take its time; files are those of the machine.
func (h *Host) Visit(f func() error) error {
	if h.space == nil {
		return fmt.Errorf("lab: host %s: %w", h.Name, errSpaceClosed)
	}
	return h.space.visit(f)
}

// Netlink returns a handle in the host's namespace, usable from any goroutine.
// It is nil when the lab has failed.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

// NFT opens an nftables connection in the host's namespace, usable from any
// goroutine. The caller ends it with CloseLasting.
func (h *Host) NFT() (*nftables.Conn, error) {
	var c *nftables.Conn
	// Not WithNetNSFd: it goes back to the first namespace of the process,
	// which the owner of a user namespace may not enter.
	err := h.Visit(func() (err error) {
		c, err = nftables.New(nftables.AsLasting())
		return err
	})
	return c, err
}

// Sysctl sets a kernel setting of the host, named as below /proc/sys or with dots.
func (h *Host) Sysctl(name, value string) {
	if h.lab.failed(nil) {
		return
	}
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	h.try("sysctl "+name, h.Do(func() error { return writeSysctl(name, value) }))
}

// Forward turns routing on, for both families.
func (h *Host) Forward() {
	h.Sysctl("net/ipv4/ip_forward", "1")
	h.Sysctl("net/ipv6/conf/all/forwarding", "1")
}

// Resolv sets the name servers in the host's /etc/resolv.conf, as its processes
// see it.
func (h *Host) Resolv(servers ...netip.Addr) {
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if h.lab.failed(nil) {
		return
	}
	h.try("resolv.conf", h.Do(func() error { return os.WriteFile("/etc/resolv.conf", []byte(b.String()), 0o644) }))
}

// Route is one route of a host.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr // zero: Dev is needed
	Dev string     // empty: found by Via
	MTU int        // zero: none
}

// Default returns the prefix that everything of addr's family is in.
func Default(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// Route adds routes to the main table, replacing equal ones.
func (h *Host) Route(routes ...Route) {
	if h.lab.failed(nil) {
		return
	}
	for _, r := range routes {
		nr := &netlink.Route{Dst: ipNet(r.Dst), MTU: r.MTU}
		if r.Via.IsValid() {
			nr.Gw = r.Via.AsSlice()
		} else if r.Dst.Addr().Is4() {
			nr.Scope = netlink.SCOPE_LINK // so that it may lead to a router
		}
		if r.Dev != "" {
			link, err := h.nl.LinkByName(r.Dev)
			if err != nil {
				h.try("route "+r.Dst.String(), err)
				return
			}
			nr.LinkIndex = link.Attrs().Index
		}
		h.try(fmt.Sprintf("route %s via %s", r.Dst, r.Via), h.nl.RouteReplace(nr))
	}
}

// DelRoute removes the route to a prefix that Route added to the main table.
func (h *Host) DelRoute(dst netip.Prefix) {
	if h.lab.failed(nil) {
		return
	}
	h.try("remove route "+dst.String(), h.nl.RouteDel(&netlink.Route{Dst: ipNet(dst), Scope: netlink.SCOPE_NOWHERE}))
}

// AddAddr adds addresses to a link of the host. They are usable at once.
func (h *Host) AddAddr(link string, addrs ...netip.Prefix) {
	if h.lab.failed(nil) {
		return
	}
	l, err := h.nl.LinkByName(link)
	if err != nil {
		h.try("link "+link, err)
		return
	}
	for _, a := range addrs {
		na := &netlink.Addr{IPNet: ipNet(a)}
		na.IP = a.Addr().AsSlice()
		if a.Addr().Is6() {
			na.Flags = unix.IFA_F_NODAD
		}
		h.try("address "+a.String(), h.nl.AddrReplace(l, na))
	}
}

// DelAddr takes addresses off a link of the host.
func (h *Host) DelAddr(link string, addrs ...netip.Prefix) {
	if h.lab.failed(nil) {
		return
	}
	l, err := h.nl.LinkByName(link)
	if err != nil {
		h.try("link "+link, err)
		return
	}
	for _, a := range addrs {
		na := &netlink.Addr{IPNet: ipNet(a)}
		na.IP = a.Addr().AsSlice()
		h.try("remove address "+a.String(), h.nl.AddrDel(l, na))
	}
}

// DelLink deletes a link of the host.
func (h *Host) DelLink(link string) {
	if h.lab.failed(nil) {
		return
	}
	l, err := h.nl.LinkByName(link)
	if err == nil {
		err = h.nl.LinkDel(l)
	}
	h.try("delete link "+link, err)
}

// linkAddr returns the first address of a family that a link has, not counting
// link-local ones; zero when there is none.
func (h *Host) linkAddr(link string, v4 bool) netip.Addr {
	if h.lab.failed(nil) {
		return netip.Addr{}
	}
	l, err := h.nl.LinkByName(link)
	if err != nil {
		return netip.Addr{}
	}
	addrs, err := h.nl.AddrList(l, familyNumber(v4))
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.Unmap().IsLinkLocalUnicast() {
			return ip.Unmap()
		}
	}
	return netip.Addr{}
}

// SetMTU changes the MTU of one link of the host, and not of its other end.
func (h *Host) SetMTU(link string, mtu int) {
	if h.lab.failed(nil) {
		return
	}
	l, err := h.nl.LinkByName(link)
	if err == nil {
		err = h.nl.LinkSetMTU(l, mtu)
	}
	h.try("mtu of "+link+" to "+strconv.Itoa(mtu), err)
}

// SetLink takes a link of the host up or down.
func (h *Host) SetLink(link string, up bool) {
	if h.lab.failed(nil) {
		return
	}
	l, err := h.nl.LinkByName(link)
	switch {
	case err != nil:
	case up:
		err = h.nl.LinkSetUp(l)
	default:
		err = h.nl.LinkSetDown(l)
	}
	h.try("link "+link, err)
}

// try fails the lab with what the host was about to do.
func (h *Host) try(what string, err error) {
	if err != nil {
		h.lab.failed(fmt.Errorf("host %s: %s: %w", h.Name, what, err))
	}
}

// keep makes close call c, too.
func (h *Host) keep(c io.Closer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closers = append(h.closers, c)
}

func (h *Host) killAll() {
	h.mu.Lock()
	procs := h.procs
	h.mu.Unlock()
	for _, p := range procs {
		_ = p.Kill()
	}
}

func (h *Host) close() {
	h.mu.Lock()
	closers := h.closers
	h.mu.Unlock()
	for _, c := range closers {
		_ = c.Close()
	}
	if h.nl != nil {
		h.nl.Close()
	}
	if h.space != nil {
		h.space.close()
	}
}

func writeSysctl(name, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644)
	if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(name, "net/ipv6/") {
		return nil // a kernel without IPv6
	}
	return err
}

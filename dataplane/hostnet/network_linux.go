package hostnet

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// networkQuiet is how long after the last event WatchNetwork looks: DHCP and
// router advertisements change an address and a route in turn.
const networkQuiet = 250 * time.Millisecond

// WatchNetwork calls changed when the ways of this host to its networks are
// other ones than at the last call, or at the start: its unicast addresses that
// are not link-local, on links that are up, or the default routes of the main
// table. Bursts are one call, at most a second late, and nothing is called for
// what a burst took back; pods that come and go cause none. The link named
// ignore, the agent's own device, does not count; empty means that all do. It
// blocks until ctx is done and then returns nil. changed is never called twice
// at the same time.
func WatchNetwork(ctx context.Context, ignore string, changed func()) error {
	return watchNetwork(ctx, ignore, networkQuiet, changed)
}

func watchNetwork(ctx context.Context, ignore string, quiet time.Duration, changed func()) error {
	w := newNetworkWatcher(ignore, quiet)
	err := w.open()
	if err == nil {
		err = w.run(ctx, func() bool { return w.compare(changed) })
	}
	if err != nil {
		return fmt.Errorf("hostnet: watch network: %w", err)
	}
	return nil
}

// network is what WatchNetwork compares.
type network struct {
	addrs    []netip.Addr // sorted
	defaults []defaultRoute
}

func (n network) equal(o network) bool {
	return slices.Equal(n.addrs, o.addrs) && slices.Equal(n.defaults, o.defaults)
}

// networkWatcher picks the events that can change the network. An event is only
// a reason to look: IPv4 routes that go with their link are not announced.
type networkWatcher struct {
	*events
	ignore string
	last   network

	mu    sync.Mutex
	links map[int32]uint32 // state flags of the links that matter, by index
}

func newNetworkWatcher(ignore string, quiet time.Duration) *networkWatcher {
	w := &networkWatcher{ignore: ignore}
	w.events = newEvents(quiet, w.concerns)
	return w
}

func (w *networkWatcher) open() error {
	err := w.subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return fmt.Errorf("subscribe to route events: %w", err)
	}
	// After subscribing, so that no change falls between.
	if w.last, err = w.read(); err != nil {
		w.close()
		return err
	}
	return nil
}

// compare calls changed when the network is another one; it returns false when
// it could not tell.
func (w *networkWatcher) compare(changed func()) bool {
	now, err := w.read()
	if err != nil {
		return false
	}
	if !now.equal(w.last) {
		w.last = now
		changed()
	}
	return true
}

// read looks at the network, and notes the links that matter for it.
func (w *networkWatcher) read() (n network, err error) {
	// Held all the time, so that no event is judged by what an earlier look
	// found and forgotten in favour of this one.
	w.mu.Lock()
	defer w.mu.Unlock()
	c, err := openRtnl()
	if err != nil {
		return n, err
	}
	defer c.close()
	links, err := c.links()
	if err != nil {
		return n, err
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return c.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return n, fmt.Errorf("list addresses: %w", err)
	}
	routes, err := c.defaultRoutes()
	if err != nil {
		return n, err
	}
	matter := map[int32]uint32{}
	note := func(index int) *netlink.LinkAttrs {
		l := links[index]
		if l == nil || l.Name == w.ignore {
			return nil // gone meanwhile, or our own
		}
		matter[int32(index)] = linkState(l.RawFlags)
		return l
	}
	for _, a := range addrs {
		ip, ok := ownAddr(a)
		if !ok {
			continue
		}
		if l := note(a.LinkIndex); l != nil && l.RawFlags&unix.IFF_UP != 0 {
			n.addrs = append(n.addrs, ip)
		}
	}
	for _, r := range routes {
		if l := note(r.link); l != nil {
			n.defaults = append(n.defaults, r)
		}
	}
	sort.Slice(n.addrs, func(i, j int) bool { return n.addrs[i].Compare(n.addrs[j]) < 0 })
	n.addrs = slices.Compact(n.addrs)
	w.links = matter
	return n, nil
}

// ownAddr returns an address that others may reach us at.
func ownAddr(a netlink.Addr) (netip.Addr, bool) {
	ip, ok := netip.AddrFromSlice(a.IP)
	ip = ip.Unmap()
	usable := a.Flags&unix.IFA_F_DADFAILED == 0 && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC) != unix.IFA_F_TENTATIVE
	return ip, ok && usable && !ip.IsLoopback() && !ip.IsLinkLocalUnicast()
}

// linkState keeps what decides whether a link's routes work.
func linkState(flags uint32) uint32 {
	return flags & (unix.IFF_UP | unix.IFF_LOWER_UP | unix.IFF_RUNNING)
}

// concerns reports whether an event may have changed the network. Pods bring
// links without addresses, and routes to single hosts.
func (w *networkWatcher) concerns(m syscall.NetlinkMessage) bool {
	b := m.Data
	switch m.Header.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		_, ok := decodeDefault(b)
		return ok
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return len(b) >= unix.SizeofIfAddrmsg && b[3] != unix.RT_SCOPE_LINK
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.linkConcerns(b, m.Header.Type == unix.RTM_DELLINK)
	}
	return false
}

// linkConcerns: a link with an address or a default route went up or down, or
// away.
func (w *networkWatcher) linkConcerns(b []byte, deleted bool) bool {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC { // bridges send their own
		return false
	}
	index, flags := int32(binary.NativeEndian.Uint32(b[4:])), binary.NativeEndian.Uint32(b[8:])
	w.mu.Lock()
	defer w.mu.Unlock()
	state, known := w.links[index]
	return known && (deleted || state != linkState(flags))
}

package hostnet

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// awaitMax bounds how long arrivals waits for all addresses.
const awaitMax = time.Second

// arrivals waits until the kernel takes packets for addresses in. Of IPv6 ones it begins
// to only a while after they were added, and says so with a route to each.
type arrivals struct{ routes *nl.NetlinkSocket }

// newArrivals comes before the addresses are added, so that no route is missed.
func newArrivals() (arrivals, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return arrivals{}, fmt.Errorf("subscribe to routes: %w", err)
	}
	return arrivals{s}, nil
}

// wait returns when all addresses have arrived, or after a second: then the first
// answers may be lost.
func (w arrivals) wait(h *netlink.Handle, addrs []netip.Addr) {
	end := time.Now().Add(awaitMax)
	for _, a := range addrs {
		for !isLocal(h, a) && w.next(time.Until(end)) {
		}
	}
}

// next waits for news, and reports whether there may be some.
func (w arrivals) next(within time.Duration) bool {
	if within < time.Millisecond { // zero would be without a limit
		return false
	}
	t := unix.NsecToTimeval(within.Nanoseconds())
	if w.routes.SetReceiveTimeout(&t) != nil {
		return false
	}
	_, _, err := w.routes.Receive()
	return err == nil || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR)
}

func (w arrivals) close() { w.routes.Close() }

func isLocal(h *netlink.Handle, a netip.Addr) bool {
	routes, err := h.RouteGet(a.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

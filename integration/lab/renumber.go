//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Renumber replaces the addresses of a family on a router's link "wan" by a new
// one and forgets all flows, as when a provider gives it another address. Its
// routes through that link stay.
func (h *Host) Renumber(to netip.Prefix) {
	if h.lab.failed(nil) {
		return
	}
	h.try("renumber to "+to.String(), h.renumber(to))
	if h.nat != nil {
		h.SetNAT(*h.nat) // some rules name the address
	}
	h.try("renumber to "+to.String(), h.Reboot())
}

func (h *Host) renumber(to netip.Prefix) error {
	v4 := to.Addr().Is4()
	link, err := h.nl.LinkByName("wan")
	if err != nil {
		return err
	}
	routes, err := h.nl.RouteList(link, familyNumber(v4))
	if err != nil {
		return err
	}
	old, err := h.nl.AddrList(link, familyNumber(v4))
	if err != nil {
		return err
	}
	for _, a := range old {
		if a.Scope == unix.RT_SCOPE_LINK {
			continue
		}
		if err := h.nl.AddrDel(link, &netlink.Addr{IPNet: a.IPNet}); err != nil {
			return fmt.Errorf("remove %s: %w", a.IPNet, err)
		}
	}
	h.AddAddr("wan", to)
	// With the last address all routes went. Those to a router come before
	// those by way of it.
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return len(a.Gw) - len(b.Gw) })
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL { // belongs to an address
			continue
		}
		r.Src = nil
		if err := h.nl.RouteReplace(&r); err != nil {
			return fmt.Errorf("route %s: %w", r, err)
		}
	}
	return nil
}

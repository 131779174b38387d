//go:build linux

package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

const (
	ravenLink = "raven0"
	ravenVNI  = 200
	ravenPort = 4472
	// tunnelMTU is that of raven0 and of every tunnel device, as Raven sets it
	// with WireGuard: the WAN's 1500 - 80. Pods send less.
	tunnelMTU = 1420
)

// ravenAddr returns the address of a node on the VXLAN segment: 240 and the last
// three octets of its own.
func ravenAddr(node netip.Addr) netip.Addr {
	b := node.As4()
	b[0] = 240
	return netip.AddrFrom4(b)
}

// ravenMAC returns the hardware address of a node on the VXLAN segment.
func ravenMAC(node netip.Addr) net.HardwareAddr {
	b := ravenAddr(node).As4()
	return net.HardwareAddr{0xaa, 0x0f, b[0], b[1], b[2], b[3]}
}

// startRaven joins node and gateway of each side by the kernel's VXLAN, set up as
// Raven does, and sends pod traffic over it. Steering is by plain routes, which
// cost less than Raven's packet marks.
func (n *network) startRaven() error {
	for _, s := range n.sides {
		if err := addRaven(s.node, s.gw); err != nil {
			return err
		}
		if err := addRaven(s.gw, s.node); err != nil {
			return err
		}
		for _, dst := range n.other(s).subnets() {
			if err := routeRaven(s.node, dst, s.gw.IP); err != nil {
				return err
			}
		}
		if err := routeRaven(s.gw, s.node.Subnets[0].Masked(), s.node.IP); err != nil {
			return err
		}
	}
	return n.lab.Err()
}

// addRaven makes raven0 on a node, with one peer.
func addRaven(n, peer *lab.Node) error {
	nl := n.Netlink()
	link := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: ravenLink, MTU: tunnelMTU, HardwareAddr: ravenMAC(n.IP)},
		VxlanId:   ravenVNI,
		Port:      ravenPort,
		SrcAddr:   n.IP.AsSlice(),
		Learning:  false,
		Age:       300,
	}
	if err := nl.LinkAdd(link); err != nil {
		return fmt.Errorf("raven0 on %s: %w", n.Name, err)
	}
	n.SetLink(ravenLink, true)
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: ravenAddr(n.IP).AsSlice(), Mask: net.CIDRMask(8, 32)},
		Scope: unix.RT_SCOPE_LINK,
	}
	if err := nl.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address of raven0 on %s: %w", n.Name, err)
	}
	for _, neigh := range []*netlink.Neigh{
		{Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, IP: peer.IP.AsSlice()},
		{Family: unix.AF_INET, IP: ravenAddr(peer.IP).AsSlice()},
	} {
		neigh.LinkIndex = link.Index
		neigh.State = netlink.NUD_PERMANENT
		neigh.HardwareAddr = ravenMAC(peer.IP)
		if err := nl.NeighSet(neigh); err != nil {
			return fmt.Errorf("neighbour of raven0 on %s: %w", n.Name, err)
		}
	}
	return nil
}

func routeRaven(n *lab.Node, dst netip.Prefix, via netip.Addr) error {
	link, err := n.Netlink().LinkByName(ravenLink)
	if err != nil {
		return err
	}
	err = n.Netlink().RouteReplace(&netlink.Route{
		Dst:       &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), 32)},
		Gw:        ravenAddr(via).AsSlice(),
		LinkIndex: link.Attrs().Index,
		Flags:     int(netlink.FLAG_ONLINK),
	})
	if err != nil {
		return fmt.Errorf("route to %s on %s: %w", dst, n.Name, err)
	}
	return nil
}

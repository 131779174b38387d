package hostnet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
)

// Prefixes returns the addresses of this host with their prefix lengths, of all
// links but loopback and the device named tun, sorted and without duplicates.
// The plan compares remote subnets with them: one that contains an address or a
// connected network of this host must not be routed into the tunnel.
// Link-local prefixes are left out, since every link has the same.
func Prefixes(tun string) ([]netip.Prefix, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("hostnet: list links: %w", err)
	}
	var out []netip.Prefix
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 || l.Name == tun {
			continue
		}
		ps, err := linkPrefixes(l)
		if err != nil {
			continue // the link vanished meanwhile
		}
		for _, p := range ps {
			if !p.Addr().IsLinkLocalUnicast() {
				out = append(out, p)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Compare(out[j]) < 0 })
	return slices.Compact(out), nil
}

// LinkMTU returns the MTU in bytes of the link that has the address ip.
func LinkMTU(ip netip.Addr) (int, error) {
	links, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("hostnet: list links: %w", err)
	}
	ip = ip.Unmap().WithZone("")
	for _, l := range links {
		ps, err := linkPrefixes(l)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Addr() == ip }) {
			return l.MTU, nil
		}
	}
	return 0, fmt.Errorf("hostnet: MTU of the link of %v: no link has that address", ip)
}

// linkPrefixes returns the addresses of a link, each with its prefix length.
func linkPrefixes(l net.Interface) ([]netip.Prefix, error) {
	addrs, err := l.Addrs()
	if err != nil {
		return nil, err
	}
	out := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		bits, _ := n.Mask.Size()
		if ok {
			out = append(out, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return out, nil
}

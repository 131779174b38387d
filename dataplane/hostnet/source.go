package hostnet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// hostAddr is one address of the host, as far as choosing a source needs it.
type hostAddr struct {
	addr   netip.Addr
	link   string
	up     bool // the link is administratively up
	usable bool // not tentative, not a failed duplicate
}

// source is the host source of one family.
type source struct {
	addr  netip.Addr // zero: none
	local bool       // the host has it, so that a route may name it
	why   string     // how it was chosen, or why there is none
	// warn is not empty when the address was chosen but peers will not take it.
	warn string
}

// chooseSource picks the host source of one family. Peers accept from this node
// only what lies in its subnets, so without an address there nothing that a
// host program sends would arrive.
func chooseSource(override netip.Addr, subnets []netip.Prefix, addrs []hostAddr) source {
	inside := func(a netip.Addr) bool {
		return slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if override.IsValid() {
		s := source{addr: override, why: "given by configuration"}
		s.local = slices.ContainsFunc(addrs, func(a hostAddr) bool { return a.addr == override && a.usable })
		if !inside(override) {
			s.warn = fmt.Sprintf("host source %v lies outside this node's subnets: peers drop its packets", override)
		}
		return s
	}
	if len(subnets) == 0 {
		return source{why: "this node has no subnet of this family"}
	}
	var fit []hostAddr
	for _, a := range addrs {
		if a.usable && inside(a.addr) {
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 {
		return source{why: "the host has no address inside its own subnets"}
	}
	best := slices.MinFunc(fit, func(a, b hostAddr) int {
		return cmp.Or(
			rank(!a.up, !b.up),
			// flannel.1 has the network's own address, which some
			// receivers take for a broadcast: cni0's is better.
			rank(isNetworkAddr(a.addr, subnets), isNetworkAddr(b.addr, subnets)),
			a.addr.Compare(b.addr),
			cmp.Compare(a.link, b.link),
		)
	})
	return source{addr: best.addr, local: true, why: "address of " + best.link}
}

// rank orders false before true.
func rank(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

func isNetworkAddr(a netip.Addr, subnets []netip.Prefix) bool {
	return slices.ContainsFunc(subnets, func(p netip.Prefix) bool {
		return p.Masked().Addr() == a && !p.IsSingleIP()
	})
}

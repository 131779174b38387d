//go:build linux

package lab

import (
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// RouterConfig configures a router between a LAN and a WAN.
type RouterConfig struct {
	Name     string
	WAN      *LAN
	WANAddrs []netip.Prefix
	LAN      *LAN
	LANAddrs []netip.Prefix
	Gateways []netip.Addr // default routes, at most one per family
	NAT      NAT
	// DropICMP drops every ICMP and ICMPv6 error and echo that the router
	// would forward or make, as careless firewalls do; neighbour discovery
	// stays.
	DropICMP bool
}

// Router makes a host with the links "wan" and "lan" that routes between them.
func (l *Lab) Router(cfg RouterConfig) *Host {
	h := l.Host(cfg.Name)
	h.Attach(cfg.WAN, "wan", cfg.WANAddrs...)
	h.Attach(cfg.LAN, "lan", cfg.LANAddrs...)
	h.Forward()
	for _, g := range cfg.Gateways {
		h.Route(Route{Dst: Default(g), Via: g})
	}
	h.SetNAT(cfg.NAT)
	if cfg.DropICMP {
		h.DropICMP()
	}
	return h
}

// DropICMP makes h drop the ICMP that it would forward or make itself, except
// what ICMPv6 needs on the link.
func (h *Host) DropICMP() {
	if h.lab.failed(nil) {
		return
	}
	f, err := h.firewall()
	if err != nil {
		h.try("nftables", err)
		return
	}
	for _, chain := range []base{dropForward, dropOutput} {
		f.chain(nftables.TableFamilyIPv4, chain, nftables.ChainPolicyAccept)
		f.add(nftables.TableFamilyIPv4, chain, rule(l4(unix.IPPROTO_ICMP), drop()))
		f.chain(nftables.TableFamilyIPv6, chain, nftables.ChainPolicyAccept)
		f.add(nftables.TableFamilyIPv6, chain, rule(l4(unix.IPPROTO_ICMPV6), neighbourDiscovery(), accept()))
		f.add(nftables.TableFamilyIPv6, chain, rule(l4(unix.IPPROTO_ICMPV6), drop()))
	}
	h.try("drop ICMP", f.commit())
}

// dropForward and dropOutput come before the chains of a NAT, which accept
// errors about known flows.
var (
	dropForward = base{"noicmp", "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityRef(-10)}
	dropOutput  = base{"noicmp", "output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRef(-10)}
)

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Mapping is how a NAT chooses outer ports (RFC 4787 section 4.1). Filtering is
// always address and port dependent, as conntrack does it.
type Mapping uint8

const (
	// MapNone: no translation, a plain router.
	MapNone Mapping = iota
	// MapKeepPort: masquerade that keeps the port where it can, with new flows
	// from outside dropped: a well configured Linux router, which behaves as
	// endpoint independent mapping.
	MapKeepPort
	// MapRandom: a random port for every destination (symmetric).
	MapRandom
)

// NAT is what a router does to the traffic between its LAN and the WAN.
type NAT struct {
	Mapping  Mapping
	BlockUDP bool // drops all UDP but DNS on the way out and in
}

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

// SetNAT replaces all nftables rules of a router by those of a NAT between its
// links "wan" and "lan". Flows that conntrack knows go on as they were.
func (h *Host) SetNAT(nat NAT) {
	if h.lab.failed(nil) {
		return
	}
	f, err := h.firewall()
	if err != nil {
		h.try("nftables", err)
		return
	}
	f.conn.FlushRuleset()
	for _, family := range families {
		h.addNAT(f, family, nat)
	}
	h.try("NAT", f.commit())
}

func (h *Host) addNAT(f firewall, family nftables.TableFamily, nat NAT) {
	f.chain(family, filterForward, nftables.ChainPolicyAccept)
	if nat.BlockUDP {
		f.add(family, filterForward, rule(dport(unix.IPPROTO_UDP, 53), accept()))
		f.add(family, filterForward, rule(udpFrom(53), established(), accept()))
		f.add(family, filterForward, rule(l4(unix.IPPROTO_UDP), drop()))
	}
	if nat.Mapping == MapNone {
		return
	}
	f.chain(family, natPrerouting, nftables.ChainPolicyAccept)
	f.chain(family, natPostrouting, nftables.ChainPolicyAccept)
	mapped := masquerade()
	if nat.Mapping == MapRandom {
		mapped = masqueradeRandom()
	}
	f.add(family, natPostrouting, rule(oif("wan"), mapped))

	// Without a drop on input, conntrack remembers an early packet of the
	// other side as a flow of our own and its port is then taken: hole
	// punching would fail (as behind routers that accept or reject input).
	f.chain(family, filterInput, nftables.ChainPolicyAccept)
	for _, chain := range []base{filterInput, filterForward} {
		f.add(family, chain, rule(iif("wan"), established(), accept()))
		if family == nftables.TableFamilyIPv6 {
			f.add(family, chain, rule(iif("wan"), neighbourDiscovery(), accept()))
		}
		f.add(family, chain, rule(iif("wan"), drop()))
	}
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

// Reboot forgets all flows, as a router does that was switched off and on.
func (h *Host) Reboot() error {
	if h.nl == nil {
		return errors.New("lab: the lab has failed")
	}
	return h.Do(func() error {
		if err := flushConntrack(); err != nil {
			return fmt.Errorf("lab: host %s: flush conntrack: %w", h.Name, err)
		}
		return nil
	})
}

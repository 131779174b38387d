//go:build linux

package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Mapping is how a NAT chooses outer ports (RFC 4787 section 4.1).
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
	// MapOpen: MapKeepPort, but what comes from outside for no flow is for the
	// router itself, and accepted: ordinary Linux masquerade. conntrack then
	// remembers an early packet of a peer as a flow, whose port is taken.
	MapOpen
	// MapSequential: the next port for every flow (symmetric, predictable).
	MapSequential
	// MapCone: one outer port for each inner address and port, whatever the
	// destination (endpoint independent), which is not the inner port. TCP and
	// IPv6 as with MapKeepPort.
	MapCone
)

// Filtering is what a NAT with MapCone lets in (RFC 4787 section 5). All others
// filter as conntrack does: by address and port.
type Filtering uint8

const (
	FilterPort    Filtering = iota // address and port dependent
	FilterAddress                  // address dependent
	FilterNone                     // endpoint independent: full cone
)

// V6 is what a NAT does to IPv6.
type V6 uint8

const (
	V6NAT      V6 = iota // the same as to IPv4
	V6Firewall           // no translation; lets in what belongs to a flow from inside
	V6Block              // forwards nothing
)

// NAT is what a router does to the traffic between its LANs and the WAN.
type NAT struct {
	Mapping   Mapping
	Filtering Filtering // of MapCone
	// Hairpin lets a host inside reach another one by its outer address, and
	// be seen with its own outer one. Of MapCone.
	Hairpin bool
	// Isolate drops what goes from one LAN of the router to another, unless
	// by way of an outer address.
	Isolate bool
	V6      V6
	// BlockUDP drops all UDP but DNS on the way out and in, of both families.
	BlockUDP bool
	// Lifetime is that of an idle UDP mapping, in whole seconds; 0 means the
	// kernel's: 30 s, 120 s after an answer, and of MapCone 300 s.
	Lifetime time.Duration
}

// SetNAT replaces all nftables rules of a router by those of a NAT between its
// link "wan" and all others. Flows that conntrack knows go on as they were,
// except behind MapCone, which forgets its mappings.
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
	if nat.Lifetime > 0 {
		s := strconv.Itoa(int(nat.Lifetime.Seconds()))
		h.Sysctl("net/netfilter/nf_conntrack_udp_timeout", s)
		h.Sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", s)
	}
	h.nat = &nat
}

func (h *Host) addNAT(f firewall, family nftables.TableFamily, nat NAT) {
	f.chain(family, filterForward, nftables.ChainPolicyAccept)
	if nat.BlockUDP {
		f.add(family, filterForward, rule(dport(unix.IPPROTO_UDP, 53), accept()))
		f.add(family, filterForward, rule(udpFrom(53), established(), accept()))
		f.add(family, filterForward, rule(l4(unix.IPPROTO_UDP), drop()))
	}
	if family == nftables.TableFamilyIPv6 {
		switch nat.V6 {
		case V6Block:
			f.add(family, filterForward, drop())
			return
		case V6Firewall:
			f.chain(family, filterInput, nftables.ChainPolicyAccept)
			f.keepOut(family, filterInput)
			f.keepOut(family, filterForward)
			return
		}
	}
	if nat.Mapping == MapNone {
		return
	}
	f.chain(family, natPrerouting, nftables.ChainPolicyAccept)
	f.chain(family, natPostrouting, nftables.ChainPolicyAccept)
	if nat.Isolate {
		f.add(family, filterForward, rule(notIIF("wan"), notOIF("wan"), untranslated(), drop()))
	}
	if nat.Mapping == MapCone && family == nftables.TableFamilyIPv4 {
		h.try("NAT", h.addCone(f, nat))
	}
	if wan := h.linkAddr("wan", family == nftables.TableFamilyIPv4); nat.Mapping == MapSequential && wan.IsValid() {
		f.add(family, natPostrouting, rule(oif("wan"), l4(unix.IPPROTO_UDP), nextPort(rand.Uint32N(nextPorts/2)), snatTo(wan)))
	}
	mapped := masquerade()
	if nat.Mapping == MapRandom {
		mapped = masqueradeRandom()
	}
	f.add(family, natPostrouting, rule(oif("wan"), mapped))
	if nat.Mapping == MapOpen {
		return
	}
	// Without a drop on input, conntrack remembers an early packet of the
	// other side as a flow of our own and its port is then taken: hole
	// punching would fail (as behind routers that accept or reject input).
	f.chain(family, filterInput, nftables.ChainPolicyAccept)
	for _, chain := range []base{filterInput, filterForward} {
		f.keepOut(family, chain)
	}
}

// keepOut drops what comes from the WAN and belongs to no flow.
func (f firewall) keepOut(family nftables.TableFamily, chain base) {
	f.add(family, chain, rule(iif("wan"), established(), accept()))
	if family == nftables.TableFamilyIPv6 {
		f.add(family, chain, rule(iif("wan"), neighbourDiscovery(), accept()))
	}
	f.add(family, chain, rule(iif("wan"), drop()))
}

// Reboot forgets all flows, as a router does that was switched off and on. A NAT
// with MapCone or MapSequential then chooses other ports.
func (h *Host) Reboot() error {
	if h.nl == nil {
		return errors.New("lab: the lab has failed")
	}
	if h.nat != nil && (h.nat.Mapping == MapCone || h.nat.Mapping == MapSequential) {
		h.SetNAT(*h.nat) // ports come from a random number in the rules
	}
	return h.Do(func() error {
		if err := flushConntrack(); err != nil {
			return fmt.Errorf("lab: host %s: flush conntrack: %w", h.Name, err)
		}
		return nil
	})
}

//go:build linux

package lab

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// An endpoint independent NAT out of nftables. conntrack's own mappings belong to
// one flow each, so the outer port is a hash of the inner address and port,
// and a map that every packet on its way out refreshes leads back in.

// The 32-bit registers of these rules; the first four are reg, so a word that uses
// that comes before all of these.
const (
	regAddr  = 8  // an IPv4 address, or with the three that follow an IPv6 one
	regPort  = 9  // the port that belongs to it
	regOther = 10 // another IPv4 address
	regOuter = 12 // an outer port, or what the map says of one: an address ...
	regInner = 13 // ... and this port
)

const (
	conePorts    = 20000 // number of outer ports, from coneFirst
	coneFirst    = 10000
	nextPorts    = 20000 // the same of MapSequential
	nextFirst    = 30000
	coneSize     = 65536 // mappings
	coneLifetime = 300 * time.Second
)

// The outer port leads to the inner address and port; and these two and the
// address of a destination, for the filter. The numbers tell the sets of one
// batch apart.
var (
	innerOf = dynamicSet{1, natPostrouting.table, "inner", []nftables.SetDatatype{nftables.TypeInetService}, []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetService}}
	seen    = dynamicSet{2, filterForward.table, "seen", []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr}, nil}
)

// dynamicSet is a set, or with data a map, that the rules of its table fill.
type dynamicSet struct {
	id          uint32
	table, name string
	key, data   []nftables.SetDatatype
}

// set makes an empty set whose elements live for life.
func (f firewall) set(d dynamicSet, life time.Duration) error {
	s := &nftables.Set{
		Table: &nftables.Table{Family: nftables.TableFamilyIPv4, Name: d.table},
		ID:    d.id, Name: d.name, IsMap: d.data != nil, Dynamic: true, HasTimeout: true, Timeout: life, Size: coneSize,
		KeyType: nftables.MustConcatSetType(d.key...), Concatenation: len(d.key) > 1,
	}
	if s.IsMap {
		s.DataType = nftables.MustConcatSetType(d.data...)
	}
	return f.conn.AddSet(s, nil)
}

// update adds or refreshes the element whose key begins at a register, with what
// begins at data.
func (d dynamicSet) update(key, data uint32, life time.Duration) words {
	return words{&expr.Dynset{
		SrcRegKey: key, SrcRegData: data, SetName: d.name, SetID: d.id, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: life,
	}}
}

// has matches when the set has the key, and in a map puts its data into a register.
func (d dynamicSet) has(key, data uint32) words {
	return words{&expr.Lookup{SourceRegister: key, DestRegister: data, IsDestRegSet: data != 0, SetName: d.name, SetID: d.id}}
}

// addCone adds the mappings and the filter of MapCone, for UDP over IPv4.
func (h *Host) addCone(f firewall, nat NAT) error {
	const family = nftables.TableFamilyIPv4
	life := cmp.Or(nat.Lifetime, coneLifetime)
	udp, outer := l4(unix.IPPROTO_UDP), outerPort(1+rand.Uint32N(1<<30))
	if err := f.set(innerOf, life); err != nil {
		return err
	}
	f.chain(family, natRecord, nftables.ChainPolicyAccept)
	f.add(family, natRecord, rule(oif("wan"), udp, outer, innerOf.update(regOuter, regAddr, life)))

	from, to := iif("wan"), snatTo(h.linkAddr("wan", true))
	if nat.Hairpin {
		from = toMe()
		f.add(family, natPostrouting, rule(notIIF("wan"), notOIF("wan"), udp, translated(), outer, to))
	}
	f.add(family, natPrerouting, rule(from, udp, loadDstPort(regAddr), innerOf.has(regAddr, regOuter), dnatTo()))
	f.add(family, natPostrouting, rule(oif("wan"), udp, outer, to))
	return f.addConeFilter(nat.Filtering, life)
}

// addConeFilter lets in what conntrack knows no flow for; it comes before the
// rules that drop that.
func (f firewall) addConeFilter(how Filtering, life time.Duration) error {
	const family = nftables.TableFamilyIPv4
	udp := l4(unix.IPPROTO_UDP)
	switch how {
	case FilterNone:
		f.add(family, filterForward, rule(iif("wan"), udp, translated(), accept()))
	case FilterAddress:
		if err := f.set(seen, life); err != nil {
			return err
		}
		f.chain(family, filterRecord, nftables.ChainPolicyAccept)
		f.add(family, filterRecord, rule(oif("wan"), udp,
			loadSrc(regAddr), loadSrcPort(regPort), loadDst(regOther), seen.update(regAddr, 0, life)))
		f.add(family, filterForward, rule(iif("wan"), udp,
			loadDst(regAddr), loadDstPort(regPort), loadSrc(regOther), seen.has(regAddr, 0), accept()))
	}
	return nil
}

func loadSrc(to uint32) words     { return load(expr.PayloadBaseNetworkHeader, 12, 4, to) }
func loadDst(to uint32) words     { return load(expr.PayloadBaseNetworkHeader, 16, 4, to) }
func loadSrcPort(to uint32) words { return load(expr.PayloadBaseTransportHeader, 0, 2, to) }
func loadDstPort(to uint32) words { return load(expr.PayloadBaseTransportHeader, 2, 2, to) }

func load(base expr.PayloadBase, offset, n, to uint32) words {
	return words{&expr.Payload{DestRegister: to, Base: base, Offset: offset, Len: n}}
}

// outerPort leaves the source of a packet in regAddr and regPort, and the port
// for it in regOuter.
func outerPort(seed uint32) words {
	return rule(loadSrc(regAddr), loadSrcPort(regPort), words{
		&expr.Hash{
			SourceRegister: regAddr, Length: 8, DestRegister: regOuter,
			Modulus: conePorts, Offset: coneFirst, Seed: seed, Type: expr.HashTypeJenkins,
		},
		portOrder(),
	})
}

// nextPort leaves the next port of MapSequential in regOuter; from is how many
// went before.
func nextPort(from uint32) words {
	return words{
		&expr.Numgen{Register: regOuter, Modulus: nextPorts, Type: unix.NFT_NG_INCREMENTAL, Offset: nextFirst + from},
		portOrder(),
	}
}

// portOrder brings the number in regOuter into the order of bytes of the wire.
func portOrder() expr.Any {
	return &expr.Byteorder{SourceRegister: regOuter, DestRegister: regOuter, Op: expr.ByteorderHton, Len: 2, Size: 2}
}

// snatTo translates the source to an address and the port in regOuter.
func snatTo(a netip.Addr) words {
	family := uint32(unix.NFPROTO_IPV4)
	if a.Is6() {
		family = unix.NFPROTO_IPV6
	}
	return words{
		&expr.Immediate{Register: regAddr, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: regAddr, RegProtoMin: regOuter, Specified: true},
	}
}

// dnatTo translates the destination to what innerOf says in regOuter.
func dnatTo() words {
	return words{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regOuter, RegProtoMin: regInner, Specified: true}}
}

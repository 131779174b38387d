//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The words of an nftables rule. Each match compares and leaves nothing behind;
// a rule is the concatenation of its words.

const reg = 1 // the register every word uses; its contents live for one word

type words = []expr.Any

func rule(parts ...words) words { return slices.Concat(parts...) }

func meta(key expr.MetaKey, data []byte) words {
	return words{
		&expr.Meta{Key: key, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data},
	}
}

func iif(name string) words { return meta(expr.MetaKeyIIFNAME, ifname(name)) }
func oif(name string) words { return meta(expr.MetaKeyOIFNAME, ifname(name)) }
func l4(proto byte) words   { return meta(expr.MetaKeyL4PROTO, []byte{proto}) }

func notIIF(name string) words { return not(iif(name)) }
func notOIF(name string) words { return not(oif(name)) }

// not turns the comparison at the end of w around.
func not(w words) words {
	last := *w[len(w)-1].(*expr.Cmp)
	last.Op = expr.CmpOpNeq
	return append(slices.Clone(w[:len(w)-1]), &last)
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// src, dst and notDst match the addresses of a packet in a table of p's family.
func src(p netip.Prefix) words    { return inPrefix(p, 12, 8, expr.CmpOpEq) }
func notSrc(p netip.Prefix) words { return inPrefix(p, 12, 8, expr.CmpOpNeq) }
func dst(p netip.Prefix) words    { return inPrefix(p, 16, 24, expr.CmpOpEq) }
func notDst(p netip.Prefix) words { return inPrefix(p, 16, 24, expr.CmpOpNeq) }

func inPrefix(p netip.Prefix, offset4, offset6 uint32, op expr.CmpOp) words {
	n, offset := uint32(4), offset4
	if p.Addr().Is6() {
		n, offset = 16, offset6
	}
	return words{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: n, Mask: ipNet(p).Mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: op, Register: reg, Data: p.Masked().Addr().AsSlice()},
	}
}

func dport(proto byte, port uint16) words { return port16(proto, 2, port) }
func udpFrom(port uint16) words           { return port16(unix.IPPROTO_UDP, 0, port) }

func port16(proto byte, offset uint32, port uint16) words {
	return rule(l4(proto), words{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binary.BigEndian.AppendUint16(nil, port)},
	})
}

// established matches packets of known flows, and errors about them.
func established() words {
	return words{
		&expr.Ct{Register: reg, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
			Xor:  make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}

// translated matches packets of flows whose destination was rewritten.
func translated() words { return ctStatus(expr.CmpOpNeq) }

// untranslated matches all others.
func untranslated() words { return ctStatus(expr.CmpOpEq) }

func ctStatus(op expr.CmpOp) words {
	const dstNAT = 1 << 5 // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h
	return words{
		&expr.Ct{Register: reg, Key: expr.CtKeySTATUS},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(dstNAT), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: op, Register: reg, Data: make([]byte, 4)},
	}
}

// toMe matches packets to an address of the host.
func toMe() words {
	return words{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// ttlAtMost matches packets with so few hops left.
func ttlAtMost(family nftables.TableFamily, hops byte) words {
	offset := uint32(8)
	if family == nftables.TableFamilyIPv6 {
		offset = 7
	}
	return words{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1},
		&expr.Cmp{Op: expr.CmpOpLte, Register: reg, Data: []byte{hops}},
	}
}

// marked matches packets that have all bits of mark; setMark adds the bits.
func marked(mark uint32) words {
	b := binaryutil.NativeEndian.PutUint32(mark)
	return words{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: b, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: b},
	}
}

func setMark(mark uint32) words {
	return words{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{ // mark & ^bits ^ bits, which is mark | bits
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^mark),
			Xor:  binaryutil.NativeEndian.PutUint32(mark),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true},
	}
}

// oneOf matches every nth packet, by chance.
func oneOf(n uint32) words {
	if n <= 1 {
		return nil
	}
	return words{
		&expr.Numgen{Register: reg, Modulus: n, Type: unix.NFT_NG_RANDOM},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: make([]byte, 4)},
	}
}

func accept() words { return words{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() words   { return words{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}} }

func masquerade() words       { return words{&expr.Masq{}} }
func masqueradeRandom() words { return words{&expr.Masq{FullyRandom: true}} }

func dnat(to netip.AddrPort) words {
	family := uint32(unix.NFPROTO_IPV4)
	if to.Addr().Is6() {
		family = unix.NFPROTO_IPV6
	}
	return words{
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	}
}

// The base chains a host may have, in tables of one family. Their names and
// priorities are those of iptables-nft.
var (
	natPrerouting  = base{"nat", "PREROUTING", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest}
	natOutput      = base{"nat", "OUTPUT", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest}
	natRecord      = base{"nat", "RECORD", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, nftables.ChainPriorityRef(90)} // before the addresses are rewritten
	natPostrouting = base{"nat", "POSTROUTING", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource}
	filterRecord   = base{"filter", "RECORD", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, nftables.ChainPriorityRef(90)}
	filterInput    = base{"filter", "INPUT", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter}
	filterForward  = base{"filter", "FORWARD", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter}
)

type base struct {
	table, name string
	kind        nftables.ChainType
	hook        *nftables.ChainHook
	priority    *nftables.ChainPriority
}

var families = []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}

func familyOf(a netip.Addr) nftables.TableFamily {
	if a.Is4() {
		return nftables.TableFamilyIPv4
	}
	return nftables.TableFamilyIPv6
}

// firewall adds to a host's rules; commit applies everything at once and ends it.
type firewall struct{ conn *nftables.Conn }

func (h *Host) firewall() (firewall, error) {
	c, err := h.NFT()
	return firewall{c}, err
}

// chain makes the base chain in the family's table, when missing.
func (f firewall) chain(family nftables.TableFamily, b base, policy nftables.ChainPolicy) *nftables.Chain {
	t := f.conn.AddTable(&nftables.Table{Family: family, Name: b.table})
	return f.conn.AddChain(&nftables.Chain{
		Table: t, Name: b.name, Type: b.kind, Hooknum: b.hook, Priority: b.priority, Policy: &policy,
	})
}

func (f firewall) add(family nftables.TableFamily, b base, exprs words) {
	t := &nftables.Table{Family: family, Name: b.table}
	f.conn.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: b.name, Table: t}, Exprs: exprs})
}

func (f firewall) commit() error { return errors.Join(f.conn.Flush(), f.conn.CloseLasting()) }

package hostnet

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// natPriority puts our chain before every usual source NAT (srcnat is 100): the
// first chain that sets up NAT for a connection ends the hook.
const natPriority nftables.ChainPriority = 90

const natChain = "postrouting"

// natSet is one set of own subnets.
type natSet struct {
	name      string
	keyType   nftables.SetDatatype
	intervals []interval
}

// natRules is what our table should hold: plain values, compared with the
// kernel's by their text.
type natRules struct {
	sets  []natSet
	rules [][]expr.Any
}

// natFamily is what differs between IPv4 and IPv6.
type natFamily struct {
	set     string
	keyType nftables.SetDatatype
	proto   byte
	offset  uint32 // of the source address in the IP header
	size    uint32
}

func natFamilies() [2]natFamily {
	return [2]natFamily{
		{"pods4", nftables.TypeIPAddr, unix.NFPROTO_IPV4, 12, 4},
		{"pods6", nftables.TypeIP6Addr, unix.NFPROTO_IPV6, 8, 16},
	}
}

// wantNAT returns the content of our table for packets that leave by device.
func wantNAT(device string, subnets [2][]netip.Prefix, src [2]source) natRules {
	var n natRules
	for i, f := range natFamilies() {
		if len(subnets[i]) == 0 && !src[i].addr.IsValid() {
			continue
		}
		n.sets = append(n.sets, natSet{f.set, f.keyType, intervals(subnets[i])})
		saddr := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.size}
		snat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.proto), RegAddrMin: 1}
		match := append(ifMatch(expr.MetaKeyOIFNAME, device),
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}})
		// oifname corax0 ip saddr @pods4 snat ip to ip saddr
		n.rules = append(n.rules, slices.Concat(match, []expr.Any{
			saddr, &expr.Lookup{SourceRegister: 1, SetName: f.set}, saddr, snat,
		}))
		if src[i].addr.IsValid() {
			// oifname corax0 snat ip to HOST-SOURCE
			n.rules = append(n.rules, slices.Concat(match, []expr.Any{
				&expr.Immediate{Register: 1, Data: src[i].addr.AsSlice()}, snat,
			}))
		}
	}
	return n
}

// ifMatch matches the name of the incoming or outgoing link.
func ifMatch(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifName(name)},
	}
}

// ifName is a link name as nft compares it whole: zero-padded to IFNAMSIZ.
func ifName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func ownTable() *nftables.Table {
	return &nftables.Table{Name: NFTable, Family: nftables.TableFamilyINet}
}

func ownChain(t *nftables.Table) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return &nftables.Chain{
		Name: natChain, Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityRef(natPriority), Policy: &policy,
	}
}

// syncNAT makes our table equal to want, in one transaction, or not at all when
// it is so already.
func syncNAT(c *nftables.Conn, want natRules) (changes int, err error) {
	have, exists, err := readNAT(c)
	if err != nil {
		return 0, err
	}
	if exists && have == want.String() {
		return 0, nil
	}
	t := ownTable()
	c.AddTable(t)
	if exists {
		c.DelTable(t)
		c.AddTable(t)
	}
	for _, s := range want.sets {
		set := &nftables.Set{Table: t, Name: s.name, KeyType: s.keyType, Interval: true}
		if err := c.AddSet(set, setElements(s.intervals)); err != nil {
			return 0, fmt.Errorf("nftables set %s: %w", s.name, err)
		}
	}
	chain := c.AddChain(ownChain(t))
	for _, r := range want.rules {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r, UserData: comment(Comment)})
	}
	if err := c.Flush(); err != nil {
		return 0, fmt.Errorf("install nftables table %s: %w", NFTable, err)
	}
	return 1, nil
}

// removeNAT deletes our table when it is there.
func removeNAT(c *nftables.Conn) error {
	exists, err := hasTable(c)
	if err != nil || !exists {
		return err
	}
	c.DelTable(ownTable())
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables table %s: %w", NFTable, err)
	}
	return nil
}

func hasTable(c *nftables.Conn) (bool, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == NFTable }), nil
}

// readNAT returns the text of our table as it is in the kernel.
func readNAT(c *nftables.Conn) (text string, exists bool, err error) {
	if exists, err = hasTable(c); err != nil || !exists {
		return "", false, err
	}
	t := ownTable()
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return "", true, fmt.Errorf("list nftables chains: %w", err)
	}
	var b strings.Builder
	sets, err := c.GetSets(t)
	if err != nil {
		return "", true, fmt.Errorf("list nftables sets: %w", err)
	}
	slices.SortFunc(sets, func(a, b *nftables.Set) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range sets {
		s.Table = t
		elements, err := c.GetSetElements(s)
		if err != nil {
			return "", true, fmt.Errorf("list nftables set %s: %w", s.Name, err)
		}
		writeSet(&b, s.Name, elements)
	}
	for _, ch := range chains {
		if ch.Table.Name != NFTable {
			continue
		}
		writeChain(&b, ch)
		rules, err := c.GetRules(t, ch)
		if err != nil {
			return "", true, fmt.Errorf("list nftables chain %s: %w", ch.Name, err)
		}
		for _, r := range rules {
			fmt.Fprintln(&b, ruleText(r.Exprs))
		}
	}
	return b.String(), true, nil
}

// String is the text of the table: equal texts mean equal tables.
func (n natRules) String() string {
	var b strings.Builder
	for _, s := range n.sets {
		writeSet(&b, s.name, setElements(s.intervals))
	}
	writeChain(&b, ownChain(ownTable()))
	for _, r := range n.rules {
		fmt.Fprintln(&b, ruleText(r))
	}
	return b.String()
}

func writeSet(b *strings.Builder, name string, elements []nftables.SetElement) {
	keys := make([]string, 0, len(elements))
	for _, e := range elements {
		key := hex.EncodeToString(e.Key)
		if e.IntervalEnd {
			key += " end"
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	fmt.Fprintf(b, "set %s %s\n", name, strings.Join(keys, ","))
}

func writeChain(b *strings.Builder, c *nftables.Chain) {
	if c.Hooknum == nil || c.Priority == nil || c.Policy == nil {
		fmt.Fprintf(b, "chain %s\n", c.Name)
		return
	}
	fmt.Fprintf(b, "chain %s %s %d %d %d\n", c.Name, c.Type, *c.Hooknum, *c.Priority, *c.Policy)
}

// setElements returns each range as its first address and, as the end, the
// address behind its last; a range up to the last address of all has no end.
func setElements(ranges []interval) []nftables.SetElement {
	var out []nftables.SetElement
	for _, iv := range ranges {
		out = append(out, nftables.SetElement{Key: iv.first.AsSlice()})
		if end := iv.last.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// ruleText renders the expressions that we use; any other shows as its type, so
// that a foreign rule never equals ours. Counters do not count.
func ruleText(exprs []expr.Any) string {
	var parts []string
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			parts = append(parts, fmt.Sprintf("meta %d %d", e.Key, e.Register))
		case *expr.Cmp:
			parts = append(parts, fmt.Sprintf("cmp %d %d %x", e.Op, e.Register, e.Data))
		case *expr.Payload:
			parts = append(parts, fmt.Sprintf("payload %d %d %d %d", e.Base, e.Offset, e.Len, e.DestRegister))
		case *expr.Lookup:
			parts = append(parts, fmt.Sprintf("lookup %s %d %t", e.SetName, e.SourceRegister, e.Invert))
		case *expr.Immediate:
			parts = append(parts, fmt.Sprintf("immediate %d %x", e.Register, e.Data))
		case *expr.NAT:
			parts = append(parts, fmt.Sprintf("nat %d %d %d %d", e.Type, e.Family, e.RegAddrMin, e.RegProtoMin))
		case *expr.Verdict:
			parts = append(parts, fmt.Sprintf("verdict %d %s", e.Kind, e.Chain))
		case *expr.Counter:
		default:
			parts = append(parts, fmt.Sprintf("%T", e))
		}
	}
	return strings.Join(parts, "; ")
}

// comment is rule user data that nft and iptables show as a comment.
func comment(text string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, text)
}

// commentOf reads the comment of a rule. The library's reader trusts the
// lengths inside, which another program wrote.
func commentOf(data []byte) string {
	for len(data) >= 2 {
		n := 2 + int(data[1])
		if n > len(data) {
			return ""
		}
		if data[0] == byte(userdata.TypeComment) {
			return strings.TrimRight(string(data[2:n]), "\x00")
		}
		data = data[n:]
	}
	return ""
}

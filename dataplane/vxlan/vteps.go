package vxlan

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"corax/dataplane"
)

// vtep is one other node. All but its statistics is fixed.
type vtep struct {
	node    string     // its name, for people
	addr    netip.Addr // underlay
	segment netip.Addr // on the segment
	mac     MAC
	sources *bart.Lite // inner sources accepted from it
	head4   header     // in front of an IPv4 packet to it
	head6   header
	stats   *vtepStats // outlives the table
}

func (v *vtep) header(etherType uint16) []byte {
	if etherType == typeIPv6 {
		return v.head6[:]
	}
	return v.head4[:]
}

// vtepStats counts inner bytes.
type vtepStats struct {
	rxBytes, txBytes atomic.Uint64
	lastReceive      atomic.Int64 // Unix nanoseconds; 0: never
}

// vtepTable is an immutable snapshot: readers take no lock.
type vtepTable struct {
	byAddr map[netip.Addr]*vtep
	macs   map[MAC]*vtep // the static FDB
	sorted []*vtep       // by address; what broadcasts go to
}

// newVTEPTable makes the table of self; statistics of VTEPs that old has go on.
// It says of each what it cannot use.
func newVTEPTable(self netip.Addr, vni VNI, vteps []dataplane.VTEP, old *vtepTable) (*vtepTable, []error) {
	t := &vtepTable{
		byAddr: make(map[netip.Addr]*vtep, len(vteps)),
		macs:   make(map[MAC]*vtep, len(vteps)),
	}
	var errs []error
	for _, in := range vteps {
		addr := in.Addr.Unmap()
		switch {
		case addr == self:
			continue
		case !addr.IsValid() || addr.Is4() != self.Is4():
			errs = append(errs, fmt.Errorf("vxlan: node %q: address %s is not of the underlay's family", in.Node, in.Addr))
			continue
		case t.byAddr[addr] != nil:
			errs = append(errs, fmt.Errorf("vxlan: node %q: address %s is another node's too", in.Node, addr))
			continue
		}
		v := newVTEP(self, addr, vni, in)
		if old != nil && old.byAddr[addr] != nil {
			v.stats = old.byAddr[addr].stats
		}
		t.byAddr[addr] = v
		t.sorted = append(t.sorted, v)
	}
	slices.SortFunc(t.sorted, func(a, b *vtep) int { return a.addr.Compare(b.addr) })
	own := NodeMAC(self)
	for _, v := range t.sorted {
		if t.macs[v.mac] != nil || v.mac == own {
			// The fabric reaches both by address; the segment only one.
			errs = append(errs, fmt.Errorf("vxlan: node %q: %s gives the segment address %s, which is another node's too: the last three octets of node addresses must differ", v.node, v.addr, v.segment))
			continue
		}
		t.macs[v.mac] = v
	}
	return t, errs
}

func newVTEP(self, addr netip.Addr, vni VNI, in dataplane.VTEP) *vtep {
	v := &vtep{
		node:    in.Node,
		addr:    addr,
		segment: SegmentAddr(addr),
		mac:     NodeMAC(addr),
		sources: new(bart.Lite),
		stats:   new(vtepStats),
	}
	own := NodeMAC(self)
	v.head4 = makeHeader(vni, v.mac, own, typeIPv4)
	v.head6 = makeHeader(vni, v.mac, own, typeIPv6)
	for _, p := range in.Sources {
		v.sources.Insert(p)
	}
	return v
}

func (t *vtepTable) status() []dataplane.VTEPStatus {
	out := make([]dataplane.VTEPStatus, len(t.sorted))
	for i, v := range t.sorted {
		out[i] = dataplane.VTEPStatus{
			Addr:    v.addr,
			RxBytes: v.stats.rxBytes.Load(),
			TxBytes: v.stats.txBytes.Load(),
		}
		if ns := v.stats.lastReceive.Load(); ns != 0 {
			out[i].LastReceive = time.Unix(0, ns)
		}
	}
	return out
}

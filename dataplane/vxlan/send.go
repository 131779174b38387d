package vxlan

import (
	"net/netip"

	"corax/dataplane"
	"corax/dataplane/internal/udpbatch"
)

// sendBatch is the scratch of one Send: lists of packets, one per VTEP, linked
// through next by their indexes.
type sendBatch struct {
	vteps []*vtep
	lists []list  // of vteps
	next  []int32 // of packets
	types []uint16
	msgs  []udpbatch.Message
}

// list is empty when head is negative.
type list struct{ head, tail int32 }

// Send sends each packet to its Packet.VTEP, in order per VTEP: packets of one
// VTEP leave together, so that runs of one size become one super-datagram. It
// does not change the bytes. A packet that is no IP packet, or for an unknown
// VTEP, is dropped and counted.
func (e *Endpoint) Send(batch []dataplane.Packet) {
	b := e.batches.Get().(*sendBatch)
	b.group(e, batch)
	for i, l := range b.lists {
		v := b.vteps[i]
		to := netip.AddrPortFrom(v.addr, e.conn.LocalAddr().Port())
		bytes := 0
		for k := l.head; k >= 0; k = b.next[k] {
			b.msgs = append(b.msgs, udpbatch.Message{})
			m := &b.msgs[len(b.msgs)-1]
			m.To, m.Header, m.Payload = to, v.header(b.types[k]), batch[k].Data
			bytes += len(batch[k].Data)
		}
		v.stats.txBytes.Add(uint64(bytes))
	}
	if len(b.msgs) > 0 {
		e.count.tx.Add(uint64(e.conn.Write(b.msgs)))
	}
	b.reset()
	e.batches.Put(b)
}

// group sorts the indexes of batch into lists, stable within a VTEP.
func (b *sendBatch) group(e *Endpoint, batch []dataplane.Packet) {
	t := e.table.Load()
	last := -1
	for k := range batch {
		p := &batch[k]
		b.next = append(b.next, -1)
		typ := etherTypeOf(p.Data)
		b.types = append(b.types, typ)
		if typ == 0 {
			e.count.drops[dropNotIP].Add(1)
			continue
		}
		if last < 0 || b.vteps[last].addr != p.VTEP {
			if last = b.find(t, p.VTEP); last < 0 {
				e.count.drops[dropNoVTEP].Add(1)
				continue
			}
		}
		l := &b.lists[last]
		if l.head < 0 {
			l.head = int32(k)
		} else {
			b.next[l.tail] = int32(k)
		}
		l.tail = int32(k)
	}
}

// find returns the index of addr's list, making one; negative when addr is not
// known. A batch has few VTEPs, most often one.
func (b *sendBatch) find(t *vtepTable, addr netip.Addr) int {
	for i, v := range b.vteps {
		if v.addr == addr {
			return i
		}
	}
	v := t.byAddr[addr]
	if v == nil {
		return -1
	}
	b.vteps = append(b.vteps, v)
	b.lists = append(b.lists, list{-1, -1})
	return len(b.vteps) - 1
}

// reset forgets the packets: they are the caller's again.
func (b *sendBatch) reset() {
	clear(b.vteps)
	clear(b.msgs)
	b.vteps, b.lists, b.next = b.vteps[:0], b.lists[:0], b.next[:0]
	b.types, b.msgs = b.types[:0], b.msgs[:0]
}

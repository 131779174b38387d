package fabric

import (
	"encoding/binary"
	"net/netip"

	"corax/dataplane"
)

// arenaSize is the room for packets that the fabric makes itself, fragments and
// ICMP errors, in bytes: at least one packet of MaxMTU.
const arenaSize = 32 << 10

// port is the Sender of one origin.
type port struct {
	f      *Fabric
	origin Origin
}

// Send forwards the batch. It implements [dataplane.Sender].
func (p *port) Send(batch []dataplane.Packet) {
	f := p.f
	s := f.scratch.Get().(*scratch)
	s.snap, s.origin = f.snap.Load(), p.origin
	for i := range batch {
		f.forward(s, &batch[i])
	}
	f.flush(s)
	s.snap, s.header, s.flow = nil, header{}, flow{}
	f.scratch.Put(s)
}

// scratch is what one call of Send works with.
type scratch struct {
	snap   *snapshot
	origin Origin
	header header // of the packet at hand
	flow   flow
	out    [origins][]dataplane.Packet
	bytes  [origins]int
	arena  []byte // made when first needed
	used   int
}

func newScratch() any { return new(scratch) }

// emit puts a packet into the batch of one output.
func (s *scratch) emit(out Origin, b []byte, vtep netip.Addr) {
	batch := append(s.out[out], dataplane.Packet{})
	p := &batch[len(batch)-1] // field by field: see dataplane.Packet
	p.Data, p.VTEP = b, vtep
	s.out[out] = batch
	s.bytes[out] += len(b)
}

// flow is a cache of one entry: neighbours in a batch are mostly of one flow.
type flow struct {
	key  [4]uint64 // source and destination; IPv4 uses the first only
	kind uint8     // 0 empty, 4, 6
	vtep netip.Addr
	verdict
}

// forward decides on one packet and puts it, or what it becomes, into batches.
func (f *Fabric) forward(s *scratch, p *dataplane.Packet) {
	h := &s.header
	if drop := h.parse(p.Data); drop != none {
		f.counters.add(drop, 1)
		return
	}
	v := f.verdict(s, h, p.VTEP)
	if v.drop != none {
		f.counters.add(v.drop, 1)
		if v.answer != none {
			f.reply(s, h, p.VTEP, v.answer, 0)
		}
		return
	}
	if v.transit && h.ttl() <= 1 {
		f.counters.add(dropTTL, 1)
		f.reply(s, h, p.VTEP, icmpTimeExceeded, 0)
		return
	}
	limit := v.way.limit(h.v6)
	large := len(h.b) > limit
	if large && (h.v6 || h.frag4()&flagDF != 0) {
		f.reply(s, h, p.VTEP, icmpTooBig, limit)
		if len(h.b) > v.way.carries(h.v6) {
			f.counters.add(dropTooBig, 1)
			return
		}
		f.counters.add(overMTU, 1)
		large = false
	}
	if v.transit {
		h.decrement()
	}
	if h.maySYN() {
		f.clamp(s, h, v.way, p.VTEP)
	}
	if large {
		f.fragment(s, h, v.way, limit)
		return
	}
	s.emit(v.way.out, h.b, v.way.vtep)
}

// verdict is decide with the cache in front.
func (f *Fabric) verdict(s *scratch, h *header, vtep netip.Addr) *verdict {
	c := &s.flow
	if h.v6 {
		b := h.b[8:40]
		k := [4]uint64{
			binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:]),
			binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint64(b[24:]),
		}
		if c.kind == 6 && c.key == k && c.vtep == vtep {
			return &c.verdict
		}
		c.kind, c.key = 6, k
	} else {
		k := binary.NativeEndian.Uint64(h.b[12:20])
		if c.kind == 4 && c.key[0] == k && c.vtep == vtep {
			return &c.verdict
		}
		c.kind, c.key[0] = 4, k
	}
	c.vtep = vtep
	c.verdict = f.decide(s.snap, s.origin, h.src(), h.dst(), vtep)
	return &c.verdict
}

// clamp lowers the MSS of a SYN to what both directions carry: the packets that
// it limits come back the other way.
func (f *Fabric) clamp(s *scratch, h *header, way *entry, vtep netip.Addr) {
	t, ok := h.transport()
	if !ok || t.later || t.proto != protoTCP || !isSYN(t.b) {
		return
	}
	mtu := way.tcp
	if back, ok := s.snap.routes.Lookup(h.src()); ok {
		mtu = min(mtu, back.tcp)
	} else if v := s.snap.vteps[vtep]; v != nil {
		mtu = min(mtu, v.way.tcp)
	}
	if clampMSS(t.b, mssFor(mtu, h.v6)) {
		f.counters.add(mssClamped, 1)
	}
}

// take returns n bytes of the arena, n at most arenaSize. They hold anything.
// When the arena is used up the batches made so far are sent.
func (f *Fabric) take(s *scratch, n int) []byte {
	if s.arena == nil {
		s.arena = make([]byte, arenaSize)
	}
	if s.used+n > len(s.arena) {
		f.flush(s)
	}
	b := s.arena[s.used : s.used+n : s.used+n]
	s.used += n
	return b
}

// flush sends every batch and empties it.
func (f *Fabric) flush(s *scratch) {
	for o := range s.out {
		batch := s.out[o]
		if len(batch) == 0 {
			continue
		}
		f.counters.add(forwardPackets+counter(o), len(batch))
		f.counters.add(forwardBytes+counter(o), s.bytes[o])
		s.snap.out[o].Send(batch)
		clear(batch) // the buffers are the caller's: keep no pointer to them
		s.out[o], s.bytes[o] = batch[:0], 0
	}
	s.used = 0
}

package vxlan

import (
	"net/netip"
	"time"

	"corax/dataplane"
	"corax/dataplane/internal/offload"
	"corax/dataplane/internal/udpbatch"
	"corax/dataplane/key"
)

// receiveBatch is the most datagrams that one call of the fabric gets.
const receiveBatch = 128

// receiveLoop runs until the socket is closed.
func (e *Endpoint) receiveLoop() error {
	r := newReceiver(e)
	for {
		if err := r.step(); err != nil {
			return err
		}
	}
}

// receiver is the receive loop's state.
type receiver struct {
	e   *Endpoint
	in  [receiveBatch]udpbatch.Datagram
	out [receiveBatch]dataplane.Packet
	n   int // packets in out

	frame frame // at hand

	// The source that was accepted last in this batch: most are the same.
	fromVTEP *vtep
	from     netip.Addr

	bytes int // of the datagrams in a row from one VTEP, not yet counted

	split  offload.Splitter
	pieces []byte // of packets that were cut; nil until there was one
}

func newReceiver(e *Endpoint) *receiver { return &receiver{e: e} }

// step blocks until datagrams come, and handles them.
func (r *receiver) step() error {
	n, err := r.e.conn.Read(r.in[:])
	if err != nil {
		return err
	}
	r.take(r.in[:n], time.Now())
	return nil
}

// take sorts a batch of datagrams: packets for the fabric go there in one call.
func (r *receiver) take(in []udpbatch.Datagram, now time.Time) {
	t := r.e.table.Load()
	r.fromVTEP = nil
	var v *vtep
	for i := range in {
		if from := in[i].From.Addr(); v == nil || v.addr != from {
			r.count(v, now)
			v = t.byAddr[from]
		}
		if r.n == len(r.out) {
			r.flush()
		}
		if d := r.datagram(v, in[i].Data, t, now); d != dropNone {
			r.e.count.drops[d].Add(1)
		}
	}
	r.count(v, now)
	r.flush()
}

// count notes what a row of datagrams from v brought: atomic operations cost more
// than the rest, so there is one for all.
func (r *receiver) count(v *vtep, now time.Time) {
	if r.bytes > 0 {
		v.stats.rxBytes.Add(uint64(r.bytes))
		v.stats.lastReceive.Store(now.UnixNano())
		r.bytes = 0
	}
}

// give puts a packet from v into the batch for the fabric, which has room.
func (r *receiver) give(v *vtep, pkt []byte) {
	p := &r.out[r.n] // field by field: see dataplane.Packet
	p.Data, p.VTEP = pkt, v.addr
	r.n++
}

// flush sends the batch to the fabric.
func (r *receiver) flush() {
	if r.n == 0 {
		return
	}
	r.e.count.rx.Add(uint64(r.n))
	r.e.receive.Send(r.out[:r.n])
	clear(r.out[:r.n])
	r.n = 0
}

// datagram takes one datagram from v, which is nil for a stranger.
func (r *receiver) datagram(v *vtep, b []byte, t *vtepTable, now time.Time) drop {
	if v == nil {
		return dropUnknownVTEP
	}
	e, f := r.e, &r.frame
	d := f.parse(b, e.vni)
	if d != dropNone {
		return d
	}
	if f.dst != e.mac && !f.dst.group() {
		return dropMAC
	}
	switch f.etherType {
	case typeARP:
		if d := checkARP(f.payload, v.segment); d != dropNone {
			return d
		}
		d = e.link.deliver(f, now)
	case typeIPv4, typeIPv6:
		d = r.ip(v, f, now)
	default:
		return dropEtherType
	}
	if d != dropNone {
		return d
	}
	r.bytes += len(f.payload)
	if f.src != v.mac && t.macs[f.src] == nil {
		e.learned.learn(f.src, v.addr, now)
	}
	return dropNone
}

// ip takes an IP packet: what is for the segment goes to the stack, the rest to
// the fabric. It trims f.payload to the packet.
func (r *receiver) ip(v *vtep, f *frame, now time.Time) drop {
	pkt, src, dst, ok := parseIP(f.etherType, f.payload)
	if !ok {
		return dropMalformed
	}
	f.payload = pkt
	open := completeChecksum(f.etherType, pkt)
	if onSegment(dst) {
		if d := checkSegment(pkt, src, v.segment); d != dropNone {
			return d
		}
		return r.e.link.deliver(f, now)
	}
	if f.dst != r.e.mac {
		return dropMAC // a broadcast is for the segment: forwarding it could storm
	}
	if v != r.fromVTEP || src != r.from {
		switch {
		case v.sources.Contains(src):
			r.fromVTEP, r.from = v, src
		case dst != r.e.overlay || !key.OverlayPrefix.Contains(src):
			return dropSource
		}
	}
	if open && super(f.etherType, pkt) {
		return r.cut(v, f.etherType, pkt)
	}
	r.give(v, pkt)
	return dropNone
}

// onSegment reports whether dst is on the segment itself: what the link face
// takes and sends, and the fabric never sees.
func onSegment(dst netip.Addr) bool {
	if dst.Is4() {
		return segmentPrefix.Contains(dst)
	}
	return dst.IsLinkLocalUnicast() || dst.IsLinkLocalMulticast()
}

// checkSegment checks a packet for the segment from the node at segment. Over
// IPv6 only ICMP is taken: neighbour discovery, and pings of link-local
// addresses.
func checkSegment(pkt []byte, src, segment netip.Addr) drop {
	switch {
	case src.Is4() && src == segment:
		return dropNone
	case src.Is4() || !src.IsLinkLocalUnicast() && !src.IsUnspecified():
		return dropSource
	case pkt[6] != protoICMP6:
		return dropProtocol // multicast reports of the kernel, for example
	}
	return dropNone
}

// checkARP checks an ARP packet (RFC 826) of the node at segment: of the segment
// addresses it may only claim its own, or it could take over another node's. A
// kernel asks with any address of the host as sender.
func checkARP(b []byte, segment netip.Addr) drop {
	const arpLen = 28
	if len(b) < arpLen || [6]byte(b[:6]) != [6]byte{0, 1, 8, 0, 6, 4} {
		return dropMalformed
	}
	if sender := netip.AddrFrom4([4]byte(b[14:18])); sender != segment && segmentPrefix.Contains(sender) {
		return dropSource
	}
	return dropNone
}

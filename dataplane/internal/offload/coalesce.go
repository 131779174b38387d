package offload

import (
	"encoding/binary"

	"corax/dataplane"
)

const (
	// MaxBatch is the most packets that one call of [Coalescer.Coalesce]
	// takes.
	MaxBatch = 256

	// maxJoined bounds the packets in one super-packet, and so the iovecs of
	// one write, well below the kernel's 1024.
	maxJoined = 128

	// maxHeader holds the headers of a packet that is joined: IPv6 and a TCP
	// header with all its options, behind the virtio-net header.
	maxHeader = HeaderLen + ip6Len + 60

	// flowSlots is the size of the table of open runs. Two flows in one slot
	// push each other out, which costs only a smaller super-packet.
	flowSlots = 256

	none = -1
)

// Write is one write to the TUN: the virtio-net header with what follows it,
// in iovecs.
type Write struct {
	// Vec aliases the batch and the Coalescer; it is valid until the next
	// call of Coalesce.
	Vec [][]byte
	// Head is the index of the first packet in the batch, Count how many the
	// write carries. Next leads to the others.
	Head  int
	Count int
	// GSO is GSONone for one plain packet, else the kind of super-packet.
	GSO uint8
}

// Coalescer joins packets of one flow that follow each other into super-packets.
// The result is what the kernel's own GRO would have made of them: cutting a
// super-packet again gives the same packets (of IPv4 packets with DF set the
// identification may differ).
//
// The order within a flow is kept; a packet that belongs to no flow (fragments,
// other protocols) keeps its place towards all of them. The packets of the batch
// are not changed. It is used by one goroutine at a time; the zero value joins
// nothing until TCP or UDP is set.
type Coalescer struct {
	// TCP and UDP say what may be joined.
	TCP, UDP bool

	runs    []run
	next    []int16          // by packet: the next one of its run, or none
	slots   [flowSlots]int16 // open runs: index in runs plus one, zero for none
	header  []byte           // maxHeader bytes a super-packet
	headers int              // super-packets in this batch
	vec     [][]byte
	writes  []Write
	plain   [HeaderLen]byte
	alone   [2][]byte // for Plain
}

// run is a row of packets that leave together.
type run struct {
	layout
	slot       int
	head, tail int16
	count      int
	size       int // length of the super-packet in bytes
	gso        int // payload of every packet but the last
	id         uint16
	seq        uint32 // what the next packet must have
	checked    bool   // the checksums of the head are right
}

// Coalesce returns the writes that carry the batch, at most MaxBatch packets; a
// longer batch is cut off there. The result is valid until the next call.
func (c *Coalescer) Coalesce(batch []dataplane.Packet) []Write {
	batch = batch[:min(len(batch), MaxBatch)]
	c.reset()
	for i := range batch {
		c.place(batch, i)
	}
	for i := range c.runs {
		c.emit(batch, &c.runs[i])
	}
	return c.writes
}

// Next returns the index of the packet that follows packet i of the last batch
// in its write, or -1.
func (c *Coalescer) Next(i int) int { return int(c.next[i]) }

// Plain returns the iovecs that carry p by itself, as Coalesce would for a packet
// that nothing can be joined to. They are valid until the next call of Plain.
func (c *Coalescer) Plain(p []byte) [][]byte {
	c.alone = [2][]byte{c.plain[:], p}
	return c.alone[:]
}

func (c *Coalescer) reset() {
	if c.next == nil {
		c.next = make([]int16, 0, MaxBatch)
		c.runs = make([]run, 0, MaxBatch)
		c.writes = make([]Write, 0, MaxBatch)
		c.header = make([]byte, MaxBatch/2*maxHeader)
		c.vec = make([][]byte, 0, 2*MaxBatch)
	}
	c.next, c.runs, c.writes, c.vec = c.next[:0], c.runs[:0], c.writes[:0], c.vec[:0]
	c.headers = 0
	clear(c.slots[:])
}

// place puts packet i into an open run of its flow, or into a new one.
func (c *Coalescer) place(batch []dataplane.Packet, i int) {
	c.next = append(c.next, none)
	p := batch[i].Data
	l, ok := parseLayout(p)
	if !ok {
		// It may belong to any flow: nothing later may overtake it.
		clear(c.slots[:])
		c.runs = append(c.runs, run{head: int16(i), tail: int16(i), count: 1})
		return
	}
	slot := flowSlot(l, p)
	joinable := c.joinable(l, p)
	if at := c.slots[slot]; at != 0 && joinable && c.join(batch, &c.runs[at-1], l, i) {
		return
	}
	c.open(l, p, i, slot, joinable)
}

// open starts a run with packet i. It closes the run in the same slot, so a
// packet that cannot be joined holds back its own flow, too.
func (c *Coalescer) open(l layout, p []byte, i, slot int, joinable bool) {
	c.slots[slot] = 0
	r := run{layout: l, slot: slot, head: int16(i), tail: int16(i), count: 1, size: len(p), gso: len(p) - l.hdr}
	if joinable && !pushed(l, p) {
		if !l.v6 {
			r.id = binary.BigEndian.Uint16(p[4:]) + 1
		}
		if l.proto == protoTCP {
			r.seq = binary.BigEndian.Uint32(p[l.l4+4:]) + uint32(r.gso)
		}
		c.slots[slot] = int16(len(c.runs) + 1)
	}
	c.runs = append(c.runs, r)
}

// join adds packet i to r when it continues it.
func (c *Coalescer) join(batch []dataplane.Packet, r *run, l layout, i int) bool {
	head, p := batch[r.head].Data, batch[i].Data
	n := len(p) - l.hdr
	if r.layout != l || n > r.gso || r.size+n > maxPacket || r.count >= maxJoined || !r.continues(head, p) {
		return false
	}
	if !r.checked {
		// Only now: the checksum of a packet that stays alone is not our
		// business. A super-packet counts as checked, so a wrong checksum
		// must never get into one.
		if r.checked = l.valid(head); !r.checked {
			return false
		}
	}
	if !l.valid(p) {
		return false
	}
	c.next[r.tail] = int16(i)
	r.tail = int16(i)
	r.count++
	r.size += n
	r.id++
	r.seq += uint32(n)
	if n < r.gso || pushed(l, p) {
		c.slots[r.slot] = 0
	}
	return true
}

// emit turns a run into a write.
func (c *Coalescer) emit(batch []dataplane.Packet, r *run) {
	w := Write{Head: int(r.head), Count: r.count}
	from := len(c.vec)
	head := batch[r.head].Data
	if r.count == 1 {
		c.vec = append(c.vec, c.plain[:], head)
	} else {
		w.GSO = r.gsoType()
		c.vec = append(c.vec, c.superHeader(batch, r))
		for k := r.head; k != none; k = c.next[k] {
			c.vec = append(c.vec, batch[k].Data[r.hdr:])
		}
	}
	w.Vec = c.vec[from:len(c.vec):len(c.vec)]
	c.writes = append(c.writes, w)
}

func (l layout) gsoType() uint8 {
	switch {
	case l.proto == protoUDP:
		return GSOUDP
	case l.v6:
		return GSOTCP6
	default:
		return GSOTCP4
	}
}

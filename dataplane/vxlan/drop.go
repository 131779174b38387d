package vxlan

import (
	"sync/atomic"

	"corax/dataplane"
)

// drop is the reason for not taking a frame or a packet.
type drop uint8

const (
	dropNone drop = iota
	// Frames received.
	dropUnknownVTEP
	dropShort
	dropFlags
	dropVNI
	dropMAC
	dropEtherType
	dropMalformed
	dropSource
	dropProtocol
	dropSegmentRate
	dropNoStack
	// Packets to send.
	dropNoVTEP
	dropNotIP
	dropOffSegment
	drops
)

func (d drop) String() string {
	return [drops]string{
		dropNone:        "none",
		dropUnknownVTEP: "unknown_vtep",
		dropShort:       "short",
		dropFlags:       "flags",
		dropVNI:         "vni",
		dropMAC:         "mac",
		dropEtherType:   "ethertype",
		dropMalformed:   "malformed",
		dropSource:      "source",
		dropProtocol:    "segment_protocol",
		dropSegmentRate: "segment_rate",
		dropNoStack:     "no_stack",
		dropNoVTEP:      "no_vtep",
		dropNotIP:       "not_ip",
		dropOffSegment:  "off_segment",
	}[d]
}

// counters are those of one Endpoint.
type counters struct {
	drops   [drops]atomic.Uint64
	rx, tx  atomic.Uint64 // packets of the fabric
	supers  atomic.Uint64 // packets that came in uncut
	segment atomic.Uint64 // frames given to the stack
}

func (c *counters) list() []dataplane.Counter {
	out := []dataplane.Counter{
		{Name: "vxlan_receive_packets_total", Value: c.rx.Load()},
		{Name: "vxlan_receive_super_total", Value: c.supers.Load()},
		{Name: "vxlan_send_packets_total", Value: c.tx.Load()},
		{Name: "vxlan_segment_frames_total", Value: c.segment.Load()},
	}
	for d := dropNone + 1; d < drops; d++ {
		out = append(out, dataplane.Counter{Name: "vxlan_drop_total", Reason: d.String(), Value: c.drops[d].Load()})
	}
	return out
}

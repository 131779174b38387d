package fabric

import (
	"sync/atomic"

	"corax/dataplane"
)

// counter names one counter of the fabric. The zero counter is no counter: as
// a drop reason it means that the packet goes on.
type counter uint8

const (
	none counter = iota

	dropBadHeader
	dropBadChecksum
	dropBadFragment
	dropMartianSource
	dropMartianDestination
	dropMulticast
	dropLinkLocal
	dropTUNSource
	dropNetstackSource
	dropSpoofedSource
	dropOverlaySource
	dropNoRoute
	dropNoWireGuard
	dropNoVXLAN
	dropNoTUN
	dropNoNetstack
	dropWGToWG
	dropHairpin
	dropTTL
	dropTooBig

	icmpTimeExceeded
	icmpTooBig
	icmpNoRoute
	icmpUnreachable
	icmpProhibited
	icmpRateLimited
	icmpForbidden

	overMTU
	fragmentedPackets
	fragmentsMade
	mssClamped
	neighbourRefused

	// One of each per way, in the order of Origin.
	forwardPackets
	forwardBytes = forwardPackets + counter(origins)
	numCounters  = forwardBytes + counter(origins)
)

const (
	dropTotal     = "fabric_drop_total"
	icmpTotal     = "fabric_icmp_total"
	icmpDropTotal = "fabric_icmp_suppressed_total"
)

var counterNames = [forwardPackets]dataplane.Counter{
	dropBadHeader:          {Name: dropTotal, Reason: "bad_header"},
	dropBadChecksum:        {Name: dropTotal, Reason: "bad_checksum"},
	dropBadFragment:        {Name: dropTotal, Reason: "bad_fragment"},
	dropMartianSource:      {Name: dropTotal, Reason: "martian_source"},
	dropMartianDestination: {Name: dropTotal, Reason: "martian_destination"},
	dropMulticast:          {Name: dropTotal, Reason: "multicast"},
	dropLinkLocal:          {Name: dropTotal, Reason: "link_local"},
	dropTUNSource:          {Name: dropTotal, Reason: "tun_source"},
	dropNetstackSource:     {Name: dropTotal, Reason: "netstack_source"},
	dropSpoofedSource:      {Name: dropTotal, Reason: "spoofed_source"},
	dropOverlaySource:      {Name: dropTotal, Reason: "overlay_source"},
	dropNoRoute:            {Name: dropTotal, Reason: "no_route"},
	dropNoWireGuard:        {Name: dropTotal, Reason: "no_wireguard"},
	dropNoVXLAN:            {Name: dropTotal, Reason: "no_vxlan"},
	dropNoTUN:              {Name: dropTotal, Reason: "no_tun"},
	dropNoNetstack:         {Name: dropTotal, Reason: "no_netstack"},
	dropWGToWG:             {Name: dropTotal, Reason: "wg_to_wg"},
	dropHairpin:            {Name: dropTotal, Reason: "hairpin"},
	dropTTL:                {Name: dropTotal, Reason: "ttl"},
	dropTooBig:             {Name: dropTotal, Reason: "too_big"},
	icmpTimeExceeded:       {Name: icmpTotal, Reason: "time_exceeded"},
	icmpTooBig:             {Name: icmpTotal, Reason: "too_big"},
	icmpNoRoute:            {Name: icmpTotal, Reason: "no_route"},
	icmpUnreachable:        {Name: icmpTotal, Reason: "unreachable"},
	icmpProhibited:         {Name: icmpTotal, Reason: "prohibited"},
	icmpRateLimited:        {Name: icmpDropTotal, Reason: "rate_limit"},
	icmpForbidden:          {Name: icmpDropTotal, Reason: "not_answerable"},
	overMTU:                {Name: "fabric_over_mtu_total"},
	fragmentedPackets:      {Name: "fabric_fragmented_total"},
	fragmentsMade:          {Name: "fabric_fragments_total"},
	mssClamped:             {Name: "fabric_mss_clamped_total"},
	neighbourRefused:       {Name: "fabric_neighbour_refused_total"},
}

// counters is ready to use when zero.
type counters struct{ n [numCounters]atomic.Uint64 }

func (c *counters) add(which counter, n int) { c.n[which].Add(uint64(n)) }

func (c *counters) list() []dataplane.Counter {
	l := make([]dataplane.Counter, 0, numCounters-1)
	for i := none + 1; i < forwardPackets; i++ {
		k := counterNames[i]
		k.Value = c.n[i].Load()
		l = append(l, k)
	}
	for o := range Origin(origins) {
		l = append(l,
			dataplane.Counter{Name: "fabric_forward_total", Reason: o.String(), Value: c.n[forwardPackets+counter(o)].Load()},
			dataplane.Counter{Name: "fabric_forward_bytes_total", Reason: o.String(), Value: c.n[forwardBytes+counter(o)].Load()})
	}
	return l
}

// Package fabric forwards IP packets between WireGuard, VXLAN, the TUN and
// netstack. It is a router of one node without a thread of its own: whoever
// received a batch calls [Fabric.From], and the packets leave through the other
// [dataplane.Sender]s before that call returns.
//
//	From(origin).Send(batch)
//	   │ parse, header checksum, martians        bad: counted, dropped
//	   │ source rules of the origin              foreign: counted, dropped
//	   │ longest prefix match                    none: ICMP unreachable
//	   │ TTL, MTU                                ICMP, or IPv4 fragments
//	   │ decrement, clamp MSS
//	   └ one Send per output
//
// The table is an immutable snapshot behind an atomic pointer. Forwarding takes
// no lock and allocates nothing; only the exceptions do more: packets between a
// VTEP's and our own overlay address touch the small table of neighbours.
//
// # Source rules
//
// wireguard-go has matched a source with the allowed IPs of its peer, vxlan
// with the sources of its VTEP. The fabric adds what these cannot know: nobody
// but the TUN and netstack sends from this node's own subnets, nothing goes
// from peer to peer or from VTEP to VTEP, and a VTEP speaks from an overlay
// address to our own overlay address only, never from the address of a
// WireGuard peer unless the configuration says that it is that peer.
//
// # Hop limit
//
// A node is one router, its kernel and its agent together. Where a packet
// passes the TUN the kernel has counted the hop, or will when it forwards to
// the pod. Hence the fabric decrements only between WireGuard and VXLAN, which
// no kernel sees, and every possible loop still passes somebody who counts.
// traceroute shows the kernels under their own addresses and each gateway node
// under the address asked for (see below).
//
// # ICMP
//
// Errors made here carry as source the destination of the packet that caused
// them: any other address would fail the allowed IPs, the VTEP's source check
// or rp_filter on the way back. They return through the origin of that packet.
// Sources: RFC 792, 1191, 1812, 4443, 8200.
//
// # MTU
//
// A route's MTU, or the node's inner MTU, bounds every packet that leaves, an
// IPv6 packet never below 1280 bytes (RFC 8200). What is larger is answered
// with ICMP too big, or fragmented when it is IPv4 without DF. Up to the route's
// Carry it goes out all the same: whoever hears no ICMP would be cut off when the
// MTU of a path turns out to be smaller than it was taken to be. The MSS of a SYN
// is clamped to the smaller of the ways to its destination and its source,
// because it limits what comes back.
package fabric

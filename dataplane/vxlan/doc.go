// Package vxlan is a VXLAN tunnel endpoint (RFC 7348) over a plain UDP socket:
// it carries the packets of a domain between its nodes and its gateway node,
// without a kernel device and without privilege.
//
// An [Endpoint] has two faces over one socket:
//
//	          fabric                        gVisor stack
//	Send, Config.Receive: batches         Link: one NIC on the segment,
//	of IP packets, per VTEP               ARP, ND, ping of 240.b.c.d
//	            └─────────── Endpoint ───────────┘
//	                   UDP 4472, VNI 200
//
// The fabric's face knows the next hop of every packet and needs no address
// resolution: the header in front of a packet is the same 22 bytes for every
// packet to one VTEP. The link face lets a stack sit on the segment, so that a
// kernel device finds our side by ARP or neighbour discovery and can ping it.
//
// Addresses on the segment follow from the node's IP: 240.b.c.d/8 and the MAC
// aa:0f:f0:b:c:d, where b.c.d are its last three bytes. A kernel VXLAN device
// with that MAC, VNI and port, and static FDB and neighbour entries, speaks
// with an Endpoint and does not see a difference. Zero UDP checksums are
// accepted over IPv4 and IPv6 (RFC 6935).
//
// VXLAN authenticates nothing. An Endpoint takes frames only from the addresses
// that [Endpoint.SetVTEPs] named, and from each only the inner sources that it
// may carry; everything else is a counter.
package vxlan

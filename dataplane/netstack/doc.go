// Package netstack is the agent's own host: a gVisor stack with the overlay
// address, for what is addressed to the agent itself. It answers pings, and
// local services listen and dial on it. Transit packets never come here.
//
//	              ┌───────────────┐
//	fabric ─Send─►│ NIC 1 overlay │  IPv6 /128, default route
//	fabric ◄─Run──┤               │
//	              │ NIC 2 segment │◄─► VXLAN link endpoint, IPv4 240.0.0.0/8, ARP
//	              └───────┬───────┘
//	              TCP, UDP, ICMP; Ping
//
// Into the stack a packet is copied once and handled on the caller's goroutine;
// TCP segments of one batch that follow each other go in as one packet.
// Out of it packets are copied into a bounded queue, because gVisor sends with
// locks held; [Stack.Run] empties it in batches. TCP leaves the stack as
// super-packets of up to 60 KB that are cut behind the queue.
//
// A [Site] is a second stack, beside this one, for a node without a TUN: it stands in
// for the node's own subnets, and hands what comes in to a [SiteHandler]. Programs of
// the node dial through it.
//
// TCP here has SACK (RFC 2018) and Reno; RACK is off and CUBIC is not used,
// since both have open faults in this stack. ICMPv6 is RFC 4443.
package netstack

// Package natlab is a simulated Internet in one process, for tests of NAT
// traversal: networks with latency, jitter, loss, reordering and an MTU, hosts
// with UDP sockets and streams, routers with NATs whose behaviour is set in the
// words of RFC 4787, and stateful firewalls for IPv6.
//
// Time is virtual and there are no goroutines: everything that happens is an
// event in one queue, ordered by time and, at the same instant, by the order of
// creation. Every chance comes from one seeded generator. The same seed and the
// same calls give the same run, packet by packet, so a failed scenario is
// repeated from its seed, with a trace.
//
//	      host                         host
//	       │ LAN 192.168.1.0/24         │ LAN 192.168.1.0/24 (another one)
//	    router: NAT                  router: NAT
//	       │ 203.0.113.10               │ 100.64.0.2
//	═══════╪════ WAN ═══════╤═══════    │ carrier's network
//	       │                │        router: NAT
//	      hub             server        │ 198.51.100.7
//	                                    └──► WAN
//
// What is not modelled: bandwidth and queues, TCP below the level of a message
// stream, ICMP other than "packet too big".
//
// Nothing here is safe for concurrent use: a [Lab] and all that belongs to it
// is used by one goroutine, mostly from within its own events.
package natlab

// Package forward carries what other domains send to this node's own subnets where
// there is no TUN: it dials the real pod or host from ordinary sockets, and needs no
// privilege.
//
//	tunnel ─► fabric ─► netstack.Site ─► Forwarder ─► socket ─► pod
//
// A TCP connection is dialled first and accepted then, so that a refused port is a
// reset for whoever asks, a silent one a timeout, and a host that is out of reach an
// ICMP error. After that the two are joined (corax/proxy/splice): half-close, resets
// and back pressure pass through. A UDP flow is a connected socket with an idle
// timer; ICMP port unreachable passes in both directions. Echo requests go out
// through unprivileged ICMP sockets (net.ipv4.ping_group_range); where the kernel
// gives none they are answered with ICMP "prohibited".
//
// Only this node's own subnets are dialled, and what the configuration names.
// Loopback, link-local and metadata addresses are refused even there, unless an
// [Expose] leads to them. Everything is bounded, for one source and in all, and what
// is dropped is counted with a reason.
//
// The backend sees an address of this host as the source. Where it has to know the
// real one, the connection can begin with a PROXY protocol header, version 2.
package forward

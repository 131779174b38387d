// Package hostnet holds what needs privilege on the host, and its undo: the
// TUN device, the routes that lead into it, the agent's own NAT, and the two
// rules that let its packets pass a foreign FORWARD chain.
//
//	pod ── FORWARD ──┐                        ┌── POSTROUTING, priority 90 ──┐
//	                 ├─ rule 100, table 9027 ─┤  own pods: identity snat     ├── corax0
//	host ── OUTPUT ──┘   by destination,      │  others: snat to host source │
//	                     after DNAT           └──────────────────────────────┘
//
// Why each part is as it is:
//
//   - Routing is by destination, in a table of our own behind one rule of
//     priority 100. It happens after DNAT, in PREROUTING and again in OUTPUT,
//     so that Service IPs whose endpoints are remote work on every node. A mark
//     set in the mangle table would come before DNAT and miss them.
//   - Each remote subnet also has an unreachable route with a high metric. It
//     wins only when the device is gone, so a dead agent leaks no pod packet
//     in the clear.
//   - Own pods get an identity snat. It ends the nat hook for that connection,
//     so a masquerade rule of the CNI further down cannot hide the pod's
//     address; accept would end only our own chain.
//   - Other sources, host programs mostly, get the host source: an address
//     that lies inside this node's subnets, the only ones that peers accept
//     from us.
//   - rp_filter of the device is 2 (loose, RFC 3704 section 2.4), because
//     packets may carry sources that another route would be best for.
//
// The agent touches only what it owns and finds it again by protocol number,
// table and comment, so a restart takes over what a crash left, and [Host.Close]
// works from a fresh process too. Global settings are never changed: they are
// checked, and reported as a [Problem] with the command that mends them.
//
// Everything acts in the network namespace of the calling thread.
package hostnet

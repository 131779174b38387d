// Package edge serves the streams that fronts of other domains ask for: it runs on
// a gateway node, listens on TCP 10280 of its overlay address, and dials the nodes
// of its own domain.
//
//	caller ─ask─► who may ask? what may be dialled? ─► node:port
//	       ◄─answer─┘                                     │
//	       ◄════════════════ bytes, unseen ═══════════════╡
//
// A caller is known by its overlay address, which WireGuard has proven. It must be
// one of the plan's; the node must be one of this domain, by name; the port one
// of the plan's; the address that the plan has for the node none that leads to
// something else. What is refused is told to the caller, counted, and logged once
// per caller and reason.
//
// Streams that are open go on when the plan changes, so that a hand-over between
// gateway nodes breaks none. One whose caller is an endpoint of no Gateway any more,
// or whose node or port is not to be asked for, is broken off after a minute. Each
// leaves an audit line.
package edge

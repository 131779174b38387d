// Package proxy is host access by node name: what a cloud gateway node takes in
// for a node of another domain goes over a stream of the overlay to a gateway
// node of that domain, which dials the node.
//
//	client ─► front ─► channel ═══ overlay TCP 10280 ═══► edge ─► node:port
//	                      └──────── node of the own domain ──────────┘
//
// The fronts (corax/proxy/front) find out which node is meant, and who asks. The
// channel (corax/proxy/channel) is a [Dialer]: it picks the gateway node. The edge
// (corax/proxy/edge) says who may ask and what may be dialled. Between them each
// stream is one TCP connection of the overlay, with its own flow control, that
// begins with a preamble (corax/proxy/preamble); what follows is copied unseen
// (corax/proxy/splice).
//
// This package itself has the values that all of them share, the registry of open
// streams and the counters. It knows neither packets nor objects: listeners and
// dial functions are given to it.
package proxy

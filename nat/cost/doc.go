// Package cost measures links. It is pure: the time is an argument, there are no
// goroutines and no I/O.
//
// The cost of a link is a time: its smoothed round trip time (RFC 6298) and a
// penalty for loss. What is configured for hubs, and a penalty for each relay, are
// added by who adds links to routes: nat/relay at a hub, nat at an edge.
package cost

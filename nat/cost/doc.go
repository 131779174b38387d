// Package cost measures links and finds the cheapest relays. It is pure: the
// time is an argument, there are no goroutines and no I/O.
//
// The cost of a link is a time: its smoothed round trip time (RFC 6298) and a
// penalty for loss. A route adds the links, a penalty per relay and what the
// owner configured for each hub on the way:
//
//	self ──► hub 1 ──► hub 2 ──► peer      at most two relays deep by default
//
// Only hubs relay, and only those that say so. Links are taken as having the
// same cost both ways, since a round trip time has no direction; where both ends
// measured the link, the higher value counts, so that a hub cannot make a link
// look cheaper than the other end sees it.
//
// [Chooser] adds the hysteresis that keeps jitter from moving traffic.
package cost

// Package channel is the fronts' end of the channel: it finds the node in the plan
// and gets a stream to one of its ports. A node of the own domain is dialled plainly.
// Any other is asked for at a gateway node of its domain, over the overlay:
//
//	connect   to its gateway nodes in the plan's order; when one has not answered
//	          for a second, to the next as well; the first that answers is asked
//	ask       for node and port; a refusal that is about this gateway node, or
//	          silence, leads to the next one
//
// One of which nothing at all comes, not even of its WireGuard, is given up after five
// seconds; on a slow path there are twenty.
//
// Nothing of the stream was sent by then, so asking again is safe. A gateway node
// that failed is tried last for half a minute: only the first request to a dead one
// waits.
package channel

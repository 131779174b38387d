// Package hello is the state exchange between peers, over the tunnel itself: UDP
// port 4501 on the overlay addresses. WireGuard has authenticated and encrypted
// it, and it works over a relay, so signalling needs no API server.
//
// What a peer says is split into topics, one value per topic: who it is, its
// candidates, what it wants relayed and the labels it gives, costs, and who
// carries the subnets of its domain. A message is one CBOR map (RFC 8949, core deterministic encoding) of
// at most 1,200 bytes:
//
//	{1: instance, 2: topic, 3: sequence, 4: part, 5: parts, 6: bytes of the value}
//
// A value that is too big is cut into parts, and counts when all of one sequence
// number are there. There are no acknowledgements: messages are idempotent, a
// change is said three times within 1.2 s, and everything again every 25 s while
// the peer is active. What was not said again for 75 s is dropped.
//
// Instance is random per start: a sequence number only means something within
// one, and a new instance replaces everything that the old one said at once.
//
// Peers are named by the 80 bits of their overlay address. Map keys and topics
// that this version does not know are ignored and counted.
//
// The nodes of one domain tell each other who is active in it with datagrams of
// the same form on the same port ([Domain]): plain nodes have no peers, and their
// keys are known to nobody.
//
// The package bounds sizes and rates in both directions and checks the form of
// every address, prefix and name. Whether the peer may say what it says (that
// the Gateway objects allow it) is for the reader to check.
package hello

// Package preamble is how a stream of the overlay begins: the channel says which
// port of which node it wants, the edge whether it serves that. Whatever follows is
// copied unseen.
//
//	ask     "cxp" | version 1 | length n | port (2, big-endian) | node name (n - 2)
//	answer  code | length n | text (n)
//
// Code zero, with no text, means served: the next byte is the node's. The asker
// sends nothing of its own before it has the answer, so until then another gateway
// node can be asked. The edge closes after a refusal.
package preamble

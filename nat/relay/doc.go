// Package relay keeps the labels of relayed traffic, on hubs and on those who
// use them. It is pure: the time is an argument, there are no goroutines and no
// I/O, and what it says and hears travels in somebody else's messages.
//
// A relay frame carries a label that its receiver gave to its sender. Terms:
//
//	A ──La──► hub ──Lb──► B        circuit of A and B, direct on both sides
//	A ◄──La── hub ◄──Lb── B
//
//	A ──La──► hub 1 ──Lm──► hub 2 ──Lb──► B      a circuit on each hub: near A
//	A ◄──La── hub 1 ◄──Ln── hub 2 ◄──Lb── B      via hub 2, and near B via hub 1
//
// A wants B: A's message to the hub lists B. The hub tells A the label La for B,
// and B the label Lb for A; each serves in both directions of its link, so Lb
// tells B the origin, and is what B answers with. When B is not the hub's own
// neighbour it asks another hub on behalf of A. Between hubs each direction has
// its own label, given by its receiver: a hub's table holds only labels that it
// drew itself, and no other hub can make two of them collide.
//
// A circuit lapses 60 s after the last message that asked for it, from either
// side, and is gone at once with the session of one of its neighbours. A hub
// that is asked by a hub only uses its own sessions, so no frame passes more
// than two hubs, and there are no loops.
package relay

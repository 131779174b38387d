// Package path decides how one peer is reached: directly, through relays, or
// over a TLS stream. A Machine is a pure state machine for one peer. It does no
// I/O, starts no goroutine and reads no clock: its owner gives it events with
// the present time, carries out the actions that come back, and calls it again
// with Tick at its Deadline. A peer without traffic has no deadline and costs
// only memory.
//
//	Wanted, Traffic, LocalChanged, RemoteChanged, RelaysChanged,
//	ProbeIn, AnswerIn, Heard, Suspect, TooBig, Lost, NetworkChanged, Tick
//	                        │
//	                  Machine.Step
//	                        │
//	Use, SendProbe, Announce, OpenSockets, CloseSockets, SetMTU, Handshake, Silent
//
// The first packet goes over the cheapest relay at once. Both ends then probe
// all candidates of the other (the connectivity checks of RFC 8445), at first
// with a TTL that opens the own NAT but does not reach the peer's: some NATs
// give a flow another port when the peer's packet came before. Against NATs
// that number mappings in sequence the next ports are predicted; against one
// that draws them at random a bounded birthday search is made. A way is proven
// by the answer to a probe that was sent on it, from the address the probe went
// to. The cheapest proven way carries the traffic, is kept warm, and is left
// within a second when it falls silent; its MTU is searched as in RFC 8899.
//
// Every decision has a Reason, which Status shows in words.
//
// Mapping and filtering behaviour are those of RFC 4787. The package imports of
// ours only dataplane/key; the numbers of its enumerations are those on the wire.
package path

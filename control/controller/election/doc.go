// Package election decides which nodes of a network domain carry its traffic. It
// is pure: nodes, Leases, a Gateway and the time in, wanted objects out.
//
//	nodes of the domain -> Candidates -> spec.endpoints
//	Leases              -> Tracker   \
//	spec.endpoints      -> Judge      -> Elect -> Status, Changes, Epoch
//
// # Candidates
//
// Nodes with the label raven.openyurt.io/gateway-node=true are the candidates, up
// to 8; without any, up to 3 Ready ones, spread over zones. Who is listed stays
// listed; one that is not labelled, beside others that are, until these have taken
// over. What a person listed is never changed.
//
// # Who is eligible
//
// An agent of a domain with several candidates keeps a Lease. A fresh one makes a
// candidate eligible; without any Lease the node must be Ready. One that lapsed,
// or that the agent released because it cannot carry traffic, makes it not
// eligible. Freshness is when the controller saw the Lease change, while it was in
// touch with the API server: clocks of nodes do not count, and neither does a time
// in which nobody could renew.
//
// A lapse counts when some other candidate was seen to renew so long after that the
// lapsed one, alive, would have too: a whole site that loses the API server is no
// reason to elect somebody else there. Agents of standbys make haste while the
// active one does not answer them.
//
// When no candidate is eligible, the active ones stay: then it is more likely that
// the API server was out of reach than that a whole site is dead.
//
// # Who is elected
//
// Whoever is active and eligible stays, up to Replicas; free seats go to the best
// candidates: with a public key, not cordoned, Ready, pinned, in a zone without a
// seat, early in spec.endpoints, in this order of weight. A better candidate takes
// the seat of a worse one only for one of the first four reasons. It then becomes
// active first, and the worse one stays active beside it until the new one has
// settled: its agent knows of its seat, and had time to open its paths. A dead one
// is dropped at once.
package election

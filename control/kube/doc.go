// Package kube is an agent's side of the cluster: it reads Gateways and the
// cluster's switches from the API server, and writes the two things that an agent
// may write, its own endpoint entry and the Lease named after its node.
//
//	Gateways, raven-cfg ─► reflectors ─► stores ─► Snapshot ─► Config.Update
//	                                        │
//	          state directory ◄── cluster.json, what was known last
//	                                        │
//	Publish, own Services ─► publisher ─► JSON patch of the own entries, in every Gateway that lists the node
//	Carry                 ─► keeper    ─► Lease, while the node is a candidate among several
//
// # Reading
//
// Objects are taken as they are: unknown fields are ignored, a field of a wrong
// type or value is a problem of that field and counts as absent, and nothing that
// one object holds keeps another from being read. Of each only what Corax uses
// stays in memory. Reading is a plain list, from the API server's cache, and a
// watch, which is what a caching proxy on an edge node (YurtHub) understands.
//
// What was known last is on disk, so that an agent that starts while the API
// server is away works with it at once. [State] says so.
//
// # Writing
//
// The list of endpoints is atomic to the API server, so the own entry is changed
// by a JSON patch that first tests that the entry at its index is still this
// node's, and that each field still holds what was read. Writes are rare and
// spread: they wait a random time at the start and after an outage, there is at
// most one in 30 s, and refused ones back off. Nothing is written that says what
// is written already.
//
// Behind a load balancer the entry's address is the controller's to write. With
// [Config.Balancers] there is none of ours, and the agent takes the address from
// the Service that is labelled with the Gateway and its node. While the Service has
// none, or is gone, what the entry says stays.
//
// The Lease says that this node can carry traffic, and is renewed only while its
// domain has another candidate. It has a connection of its own that a dead path
// does not keep busy.
package kube

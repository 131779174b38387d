// Package control says what should be: it turns Gateway objects into the desired
// state of one agent's dataplane.
//
//	Kubernetes API ─┐
//	                ├─► Snapshot ─► Plan(snapshot, local) ─► dataplane.Config
//	directory ──────┘
//
// [Plan] is pure: the same objects and the same facts about this host give the
// same result, everywhere. That is what makes every agent agree on who carries
// which subnet without talking about it. A source ([corax/control/file], the
// Kubernetes informers) makes the [Snapshot] and reports what it could not read
// as [Problem] values; Plan treats every bad value as absent, and so a bad field
// never costs more than itself.
//
// # Who is active
//
// status.activeEndpoints says who; publicKey, publicIP, publicPort and the rest
// come from the entry of the same node and type in spec.endpoints when there is
// one, else from the copy in status. Without status.activeEndpoints (a directory
// of files) the endpoints are elected in the order of spec.endpoints, as many of
// each type as Replicas says, all counted as ready; without tunnelConfig or
// proxyConfig that is one. Replicas 0 turns the layer off for that Gateway.
//
// An endpoint carries traffic when it is active, of type tunnel, has a public
// key that no earlier one has, and is a node of status.nodes. Such a node is
// called a carrier. Nodes and their subnets come from status.nodes only, also
// from a directory.
//
// # Who owns what
//
// A carrier owns its own subnets; every other node is homed on the carrier that
// [Home] picks. When two Gateways, or two nodes, claim overlapping subnets, the
// first by name keeps its claim and the other is reported.
//
// # Claims
//
// When active endpoints die and nobody elects others (a directory of files, an API
// server that is away), a listed endpoint claims: from an epoch on, which is one
// higher, these nodes are active ([Claim], made by corax/control/failover). A claim
// above the object's [v1beta1.AnnotationEpoch] takes the place of who is active by
// the object; of several the highest epoch wins, then the lower key. It may name
// listed endpoints only, so what it can move are the subnets of its own domain.
//
// # What fails closed
//
// A remote subnet whose domain has no carrier now, or that this node has no
// carrier to send to, stays routed into the agent, which answers unreachable.
// Otherwise pods would leak packets in the clear while nobody is active. Only
// Replicas 0, a Gateway without tunnel endpoints, [v1beta1.AnnotationRouted] and
// a conflict with addresses of this host leave a subnet to the kernel.
//
// # Overlay addresses inside a domain
//
// The overlay address of a carrier is reached by VXLAN from every node of its
// domain that is no carrier, standbys included, and a carrier answers a standby
// the same way: a node pings its carriers to see whether the path that its pods
// use is alive, and that path is VXLAN, both ways. Between two carriers, which
// do not depend on each other, and between two standbys, it is WireGuard.
package control

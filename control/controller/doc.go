// Package controller is `corax controller`: it makes a Gateway of every network
// domain of a cluster, chooses the nodes that carry its traffic, and exposes
// them.
//
// Each reconciler is thin: it reads objects from the manager's cache, asks a pure
// function below this folder what should be, and writes the difference as a patch.
//
//	domains   nodes, NodePools          -> Gateways, node labels      (domain)
//	gateways  nodes, Leases             -> endpoints, status          (election)
//	expose    active endpoints          -> Services, EndpointSlices   (exposure)
//	names     nodes, exposed Gateways   -> host names, proxy ports    (names)
//	settings  ConfigMap raven-cfg       -> what the switches say
//
// One replica acts, chosen by a Lease; the others have warm caches and take over
// within a second when it stops. Nothing is written twice, and what a person or
// another controller made is left alone: see guard.
package controller

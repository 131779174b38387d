// Package names says how programs of the cloud reach nodes by name: the hosts file
// in ConfigMap edge-tunnel-nodes, and the Service of the proxy's fronts with its
// ports. It is pure; the reconciler reads the objects and writes the difference.
//
//	name of an edge node ──► ClusterIP of x-raven-proxy-internal-svc
//	                           10250 ──► 10281 of an active proxy endpoint
//	                           other TLS ports ──► 10285 to 10292
//	                           plain HTTP ports ──► 10282
//	name of a cloud node ──► its own InternalIP
//
// While no proxy endpoint is active every name leads to the node itself.
//
// The names in the hosts file are read by the API server, so a node cannot claim
// one that means something else: see Hosts.
package names

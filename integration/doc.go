// Package integration holds what needs more than one process or more than one
// network namespace.
//
//	lab    hosts as network namespaces, NATs, pods, real agents; a Go package
//	tunnel the tests of tunnel mode: real agents, live changes, kills, hostile input
//	nat    the tests of NAT traversal: every pair of NATs, path changes, relays
//	demo   go run ./integration/demo: the standard topology, live, in 15 seconds
//	bench  go run ./integration/bench: ratios against other systems, in one run
//
// The tests here and the demo build their networks with the same lab, without
// external programs and, where the kernel allows user namespaces, without root.
package integration

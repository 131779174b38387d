// Package integration holds what needs more than one process or more than one
// network namespace.
//
//	lab    hosts as network namespaces, NATs, pods, real agents; a Go package
//	demo   go run ./integration/demo: the standard topology, live, in a minute
//
// The tests here and the demo build their networks with the same lab, without
// external programs and, where the kernel allows user namespaces, without root.
package integration

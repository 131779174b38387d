// Package kube holds the tests of Corax on a real Kubernetes control plane: what
// the API server refuses and lets through, what the controller makes of nodes,
// and, with hosts of a lab, what agents do when nodes and the API server fail.
// There is nothing here but tests; package cluster below starts the control
// plane.
package kube

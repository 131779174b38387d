// Package kube holds the tests of Corax on a real Kubernetes control plane
// without any network: what the API server refuses and lets through, and what the
// controller makes of nodes. There is nothing here but tests; package cluster
// below starts the control plane, and package mesh has the tests with real agents.
package kube

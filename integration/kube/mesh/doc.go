// Package mesh holds the tests in which real agents of several domains, a real
// controller and a real Kubernetes control plane run together in a lab: they make
// a mesh out of nothing but nodes, and keep traffic going when gateway nodes or
// the API server fail. There is nothing here but tests.
package mesh

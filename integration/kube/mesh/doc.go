// Package mesh builds worlds: a real Kubernetes control plane, a real controller
// and real agents of several domains, together in a lab. Its tests make a mesh out of
// nothing but nodes, and keep traffic going when gateway nodes or the API server
// fail; demos show it.
package mesh

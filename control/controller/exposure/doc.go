// Package exposure says how the hubs of a Gateway are made reachable from other
// domains: which Services, EndpointSlices and endpoint values there should be. It
// is pure; the reconciler reads the objects and writes the difference.
//
//	Gateway, active endpoints ─┐               Services, one per hub
//	raven-cfg                  ├─► For(Input) ─► EndpointSlices, one per family
//	Services and their status ─┘               publicIP, publicPort of the entries
//
// # One Service per hub
//
// Each hub has a key of its own, so peers must reach that one and no other: a
// Service has one hub behind it. A hub is a node with an active endpoint, of type
// tunnel or proxy, since both modes go over the tunnel port. The Service exposes
// UDP and the TCP fallback; where the cloud refuses two protocols in one Service,
// the TCP port moves to a second one.
//
// # Whose fields
//
// What our controller set on a Service stands in an annotation of it
// ([v1beta1.AnnotationApplied]). A value that differs from what stands there was
// set by somebody else and is kept. Ports are always ours.
//
// # Nothing leaks
//
// A Gateway has a finalizer from before its first Service until after its last.
// Names are made from the Gateway's and the node's, so a Service that was made just
// before a crash is found again. An entry is cleared before the Service that
// published it goes: the Service itself is the record of what was published.
package exposure

// Package gateway is the Kubernetes form of a Gateway: the plain structs of
// [corax/control/api/v1beta1] between TypeMeta, ObjectMeta and what our controller
// adds to the status, with the methods that a Kubernetes client wants.
//
// The controllers use it. An agent does not: it reads Gateways without trusting
// their form, and keeps far less of each.
//
// # Writing
//
// Other programs own fields of the same object that these types may not know. So a
// Gateway is never written as a whole: [MergePatch] makes a patch of what differs
// between two versions, and [Op] is one step of a JSON patch for changes inside of
// spec.endpoints, which is one atomic list to the API server.
package gateway

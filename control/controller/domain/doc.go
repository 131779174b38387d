// Package domain decides which network domains a cluster has: from its nodes, its
// NodePools and the Gateways that exist, it tells which Gateways to make, change
// and delete, and which label each node needs.
//
// A node is of the edge if it is labelled so, or its NodePool is of type Edge, or,
// where there are no NodePools, it carries the domain label with a value that does
// not mean the cloud. The edge nodes of one pool make one domain; an edge node
// without a pool, or in a pool whose nodes do not reach each other, makes one of
// its own. All other nodes, and those of the control plane, make the cloud.
//
// What a person made is left alone: a Gateway without our label and annotation,
// and the nodes that are labelled with it. The functions are pure and keep no
// state: ownership is told by [v1beta1.LabelManagedBy] and
// [v1beta1.AnnotationDomain] on a Gateway, and on a node by who wrote its label.
package domain

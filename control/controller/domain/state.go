package domain

import "corax/control/api/v1beta1"

// Labels of nodes that tell the edge from the cloud.
const (
	labelEdge         = "openyurt.io/is-edge-worker"
	labelControlPlane = "node-role.kubernetes.io/control-plane"
	labelMaster       = "node-role.kubernetes.io/master"
)

// ExposedPort is the TLS port of nodes that a new Gateway lists: the kubelet's.
const ExposedPort = "10250"

// Config says how domains are told apart. It must not be changed while in use.
type Config struct {
	// Label is the node label whose value names the node's pool.
	Label string
	// Cloud holds the values of Label that mean the cloud where no NodePool API
	// is.
	Cloud []string
	// ExposeCloud is the exposeType of a new cloud Gateway.
	ExposeCloud string
	// ProxyReplicas and TunnelReplicas are wanted in each Gateway, at least 1.
	ProxyReplicas, TunnelReplicas int
}

// State is what the cluster holds.
type State struct {
	Nodes []Node
	// Pools are the NodePools by name; nil means that the cluster has no such
	// API, which is something else than none.
	Pools    map[string]Pool
	Gateways []Gateway
}

// Node is what counts of a node.
type Node struct {
	Name   string
	Labels map[string]string
	// Ours says that we wrote its label [v1beta1.LabelGateway] last.
	Ours bool
}

// Pool is what counts of a NodePool.
type Pool struct {
	// Edge says that its spec.type is Edge.
	Edge bool
	// Apart says that its nodes do not reach each other: interConnectivity is
	// false, not just absent.
	Apart bool
}

// Gateway is one that exists.
type Gateway struct {
	v1beta1.Gateway
	// Deleting says that it has been deleted and waits for its finalizers.
	Deleting bool
}

// Plan is what is to be written, in this order: a node is labelled when its
// Gateway exists, and a Gateway is deleted when no node has its name. Each list
// is in order of names, and empty when nothing is to be done.
type Plan struct {
	Create  []v1beta1.Gateway
	Change  []Change
	Nodes   []Label
	Delete  []string
	Strange []Problem
}

// Change is a change of a Gateway of ours.
type Change struct {
	Name string
	// Proxy and Tunnel are new Replicas; nil leaves them as they are.
	Proxy, Tunnel *int
	// Written is the new value of [v1beta1.AnnotationReplicas].
	Written string
}

// Label is a change of the label of a node.
type Label struct {
	Node string
	// Had is the value that it has; empty: none.
	Had string
	// Gateway is the value that it gets.
	Gateway string
}

// Problem is something that a person should look at.
type Problem struct {
	Node string
	// Text says what it is, and what mends it.
	Text string
}

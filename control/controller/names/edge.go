package names

import (
	"slices"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
)

// Labels of nodes that tell the edge from the cloud.
const (
	labelEdge         = "openyurt.io/is-edge-worker"
	labelControlPlane = "node-role.kubernetes.io/control-plane"
	labelMaster       = "node-role.kubernetes.io/master"
)

// Places tells nodes of the edge from those of the cloud.
type Places struct {
	// DomainLabel and CloudDomains are as in the controller's Config.
	DomainLabel  string
	CloudDomains []string
	// Gateway returns the Gateway of a name, nil when there is none.
	Gateway func(name string) *v1beta1.Gateway
}

// Edge reports whether a node is reached over the proxy. The Gateway that our
// controller made for its domain knows. In one that a person made, and before a
// node has one, the node's labels tell; where they do not, a Gateway that is not
// exposed is one of the edge.
func (p *Places) Edge(labels map[string]string) bool {
	if has(labels, labelControlPlane) || has(labels, labelMaster) {
		return false
	}
	g := p.Gateway(labels[v1beta1.LabelGateway])
	if g != nil {
		if id := domain.Of(g); id != "" {
			return id != domain.Cloud
		}
	}
	switch value := labels[p.DomainLabel]; {
	case labels[labelEdge] == "true":
		return true
	case g != nil:
		return !g.Exposed()
	default:
		return value != "" && !slices.Contains(p.CloudDomains, value)
	}
}

func has(labels map[string]string, name string) bool {
	_, ok := labels[name]
	return ok
}

package domain

import (
	"slices"
	"strings"

	"corax/control/api/v1beta1"
)

// ID names a domain: "cloud", "pool/<name>" or "node/<name>". It is the value of
// [v1beta1.AnnotationDomain].
type ID string

// Cloud is the domain of the cloud.
const Cloud ID = "cloud"

const (
	poolPrefix = "pool/"
	nodePrefix = "node/"
)

// Of returns the domain that a Gateway of ours was made for; empty for what
// somebody else made.
func Of(g *v1beta1.Gateway) ID {
	id := ID(g.Metadata.Annotations[v1beta1.AnnotationDomain])
	if g.Metadata.Labels[v1beta1.LabelManagedBy] != v1beta1.ManagedBy || !id.valid() {
		return ""
	}
	return id
}

func (id ID) valid() bool {
	if id == Cloud {
		return true
	}
	for _, prefix := range []string{poolPrefix, nodePrefix} {
		if rest, ok := strings.CutPrefix(string(id), prefix); ok {
			return rest != ""
		}
	}
	return false
}

// wantedName is what the Gateway of the domain is called unless that does not
// work.
func (id ID) wantedName() string {
	if pool, ok := strings.CutPrefix(string(id), poolPrefix); ok {
		return pool
	}
	if node, ok := strings.CutPrefix(string(id), nodePrefix); ok {
		return "solo-" + node
	}
	return string(id)
}

// of returns the domain that a node belongs to.
func (cfg *Config) of(n *Node, pools map[string]Pool) ID {
	value := n.Labels[cfg.Label]
	pool, known := pools[value]
	switch {
	case has(n.Labels, labelControlPlane), has(n.Labels, labelMaster):
		return Cloud
	case n.Labels[labelEdge] == "true":
	case pools != nil && known && pool.Edge:
	case pools == nil && value != "" && !slices.Contains(cfg.Cloud, value):
	default:
		return Cloud
	}
	// A label groups its nodes even if no NodePool has that name: the label
	// says which nodes belong together, the NodePool only more about them.
	if value == "" || pool.Apart {
		return ID(nodePrefix + n.Name)
	}
	return ID(poolPrefix + value)
}

// lasts reports whether the domain's Gateway stays without any node: the cloud's
// does, and that of a pool, since what people set on them (how they are exposed)
// must survive the replacement of their last node.
func (id ID) lasts(pools map[string]Pool) bool {
	name, ok := strings.CutPrefix(string(id), poolPrefix)
	if !ok {
		return id == Cloud
	}
	pool, known := pools[name]
	return known && pool.Edge && !pool.Apart
}

func has(labels map[string]string, name string) bool {
	_, ok := labels[name]
	return ok
}

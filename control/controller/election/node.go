package election

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"corax/control/api/v1beta1"
)

// Node is a node of a domain, as far as the election cares. The zero value is one
// that carries nothing.
type Node struct {
	Name string
	// Zone is where it stands; empty when nobody says.
	Zone string
	// Ready is what its kubelet says, and Cordoned that no pod shall start on it.
	Ready, Cordoned bool
	// Pinned nodes are the only candidates of their domain.
	Pinned bool
	// PrivateIP is its address inside the domain; empty when it has none.
	PrivateIP string
	// Subnets are its pods' CIDRs, in the order of the Node object.
	Subnets []string
	// Calico says that Calico is at work on it, so that its subnets are those of
	// its blocks, when there are any.
	Calico bool
}

// LabelZone on a Node names its zone.
const LabelZone = corev1.LabelTopologyZone

// ReadNode reads what counts of a Node. It shares no memory with it.
func ReadNode(n *corev1.Node) Node {
	m := Node{
		Name:     n.Name,
		Zone:     n.Labels[LabelZone],
		Cordoned: n.Spec.Unschedulable,
		Pinned:   n.Labels[v1beta1.LabelGatewayNode] == "true",
		Calico:   calico(n.Annotations),
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			m.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, a := range n.Status.Addresses {
		if ip, err := v1beta1.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil {
			m.PrivateIP = ip.String()
			break
		}
	}
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	m.Subnets = subnets(cidrs)
	return m
}

// Equal reports whether two nodes say the same.
func (n Node) Equal(o Node) bool {
	a, b := n, o
	a.Subnets, b.Subnets = nil, nil
	return slices.Equal(n.Subnets, o.Subnets) &&
		a.Name == b.Name && a.Zone == b.Zone && a.Ready == b.Ready && a.Cordoned == b.Cordoned &&
		a.Pinned == b.Pinned && a.PrivateIP == b.PrivateIP && a.Calico == b.Calico
}

// calico reports whether Calico left its marks, as Raven looks for them.
func calico(annotations map[string]string) bool {
	for k := range annotations {
		if strings.Contains(k, "projectcalico.org") {
			return true
		}
	}
	return false
}

// subnets returns the CIDRs that pods can have, in their plain form, without
// repetitions.
func subnets(cidrs []string) []string {
	var out []string
	for _, c := range cidrs {
		p, err := v1beta1.ParseSubnet(strings.TrimSpace(c))
		if err == nil && !slices.Contains(out, p.String()) {
			out = append(out, p.String())
		}
	}
	return out
}

// SortNodes sorts nodes by name.
func SortNodes(nodes []Node) {
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
}

// find returns the node of that name in a sorted list; nil when there is none.
func find(nodes []Node, name string) *Node {
	i, ok := slices.BinarySearchFunc(nodes, name, func(n Node, name string) int { return cmp.Compare(n.Name, name) })
	if !ok {
		return nil
	}
	return &nodes[i]
}

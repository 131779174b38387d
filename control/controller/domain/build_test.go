package domain_test

import (
	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
)

const (
	poolLabel = "apps.openyurt.io/nodepool"
	edgeLabel = "openyurt.io/is-edge-worker"
	master    = "node-role.kubernetes.io/control-plane"
)

func config() domain.Config {
	return domain.Config{Label: poolLabel, ProxyReplicas: 1, TunnelReplicas: 1}
}

// node makes a node with labels, given in pairs.
func node(name string, pairs ...string) domain.Node {
	n := domain.Node{Name: name, Labels: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		n.Labels[pairs[i]] = pairs[i+1]
	}
	return n
}

// in returns n with the label of a Gateway, written by us.
func in(n domain.Node, gateway string) domain.Node {
	n.Labels[v1beta1.LabelGateway] = gateway
	n.Ours = true
	return n
}

// by is in, written by a person.
func by(n domain.Node, gateway string) domain.Node {
	n = in(n, gateway)
	n.Ours = false
	return n
}

// ours makes a Gateway as a plan of this package would, for a domain.
func ours(name string, id domain.ID) domain.Gateway {
	return domain.Gateway{Gateway: v1beta1.Gateway{
		Metadata: v1beta1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy},
			Annotations: map[string]string{
				v1beta1.AnnotationDomain: string(id), v1beta1.AnnotationReplicas: "proxy=1,tunnel=1",
			},
		},
		Spec: v1beta1.GatewaySpec{
			ProxyConfig: &v1beta1.ProxyConfiguration{Replicas: 1}, TunnelConfig: &v1beta1.TunnelConfiguration{Replicas: 1},
		},
	}}
}

// theirs makes a Gateway of a person.
func theirs(name string) domain.Gateway {
	return domain.Gateway{Gateway: v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{Name: name}}}
}

func deleting(g domain.Gateway) domain.Gateway {
	g.Deleting = true
	return g
}

// summary is a plan in few words.
type summary struct {
	Create  map[string]string // domain by name
	Change  []string
	Nodes   map[string]string // Gateway by node
	Delete  []string
	Strange []string
}

func summarize(p domain.Plan) summary {
	var s summary
	for _, g := range p.Create {
		if s.Create == nil {
			s.Create = map[string]string{}
		}
		s.Create[g.Metadata.Name] = g.Metadata.Annotations[v1beta1.AnnotationDomain]
	}
	for _, c := range p.Change {
		s.Change = append(s.Change, c.Name+" "+c.Written)
	}
	for _, l := range p.Nodes {
		if s.Nodes == nil {
			s.Nodes = map[string]string{}
		}
		s.Nodes[l.Node] = l.Gateway
	}
	s.Delete = p.Delete
	for _, q := range p.Strange {
		s.Strange = append(s.Strange, q.Node)
	}
	return s
}

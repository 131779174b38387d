package names

import (
	"net/netip"
	"slices"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

// Plan is how the fronts of the proxy are found.
type Plan struct {
	// On says that there is a Service of the fronts: proxy mode is on, and some
	// exposed Gateway takes part.
	On     bool
	Ports  PortMap
	Fronts []Front
	// Annotations is what [v1beta1.AnnotationProxyPorts] shall be, by Gateway;
	// empty: absent. Gateways that keep theirs are not in it.
	Annotations map[string]string
	Problems    []Problem
}

// Decide returns the plan. addrs returns the internal addresses of a node.
func Decide(gateways []gateway.Gateway, s exposure.Settings, addrs func(node string) []netip.Addr) Plan {
	p := Plan{Annotations: map[string]string{}}
	var plain []v1beta1.Gateway
	for i := range gateways {
		if gateways[i].DeletionTimestamp == nil {
			plain = append(plain, gateways[i].Plain())
		}
	}
	p.Ports, p.Problems = MapPorts(plain)
	seen := map[string]bool{}
	for i := range plain {
		g := &plain[i]
		c := g.Spec.ProxyConfig
		takesPart := g.Exposed() && s.Proxy && (c == nil || c.Replicas != 0)
		p.annotate(g, takesPart)
		if !takesPart {
			continue
		}
		p.On = true
		for _, e := range g.Status.ActiveEndpoints {
			if e.Type != v1beta1.TypeProxy || seen[e.NodeName] {
				continue
			}
			seen[e.NodeName] = true
			if a := addrs(e.NodeName); len(a) > 0 {
				p.Fronts = append(p.Fronts, Front{Node: e.NodeName, Addrs: slices.Clone(a)})
			}
		}
	}
	if !p.On {
		p.Problems = nil
	}
	return p
}

// annotate notes the map on exposed Gateways. One that is only switched off keeps
// it, so that ports keep their fronts.
func (p *Plan) annotate(g *v1beta1.Gateway, takesPart bool) {
	now, has := g.Metadata.Annotations[v1beta1.AnnotationProxyPorts]
	switch want := p.Ports.String(); {
	case takesPart && now != want:
		p.Annotations[g.Metadata.Name] = want
	case !g.Exposed() && has:
		p.Annotations[g.Metadata.Name] = ""
	}
}

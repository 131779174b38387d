package v1beta1

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
)

// FieldError is one bad value.
type FieldError struct {
	// Field is the path from the top of the object, for example
	// "spec.endpoints[0].publicIP".
	Field   string
	Message string
}

// Error joins the two parts.
func (e FieldError) Error() string { return e.Field + ": " + e.Message }

// Validate lists the bad values of g, by field. Whoever uses g treats each as
// absent and keeps the rest: the parsers of this package make that easy.
func (g *Gateway) Validate() []FieldError {
	v := new(validation)
	v.err("metadata.name", CheckName(g.Metadata.Name))
	v.annotations(g)
	v.spec(&g.Spec)
	for i := range g.Status.ActiveEndpoints {
		v.endpoint(fmt.Sprintf("status.activeEndpoints[%d]", i), &g.Status.ActiveEndpoints[i])
	}
	for i := range g.Status.Nodes {
		v.node(fmt.Sprintf("status.nodes[%d]", i), &g.Status.Nodes[i])
	}
	sort.Slice(v.errs, func(i, j int) bool {
		a, b := &v.errs[i], &v.errs[j]
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message)) < 0
	})
	return v.errs
}

type validation struct{ errs []FieldError }

func (v *validation) add(field, format string, args ...any) {
	v.errs = append(v.errs, FieldError{field, fmt.Sprintf(format, args...)})
}

func (v *validation) err(field string, err error) {
	if err != nil {
		v.add(field, "%v", err)
	}
}

func (v *validation) oneOf(field, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.add(field, "%q is none of %q", clip(value), allowed)
	}
}

func (v *validation) annotations(g *Gateway) {
	path := func(name string) string { return fmt.Sprintf("metadata.annotations[%q]", name) }
	_, err := g.Cost()
	v.err(path(AnnotationCost), err)
	_, err = g.Epoch()
	v.err(path(AnnotationEpoch), err)
	_, err = ParsePortMap(g.Metadata.Annotations[AnnotationProxyPorts])
	v.err(path(AnnotationProxyPorts), err)
	for _, name := range []string{AnnotationRelay, AnnotationRouted} {
		if s, ok := g.Metadata.Annotations[name]; ok {
			v.oneOf(path(name), s, "true", "false")
		}
	}
}

func (v *validation) spec(s *GatewaySpec) {
	v.oneOf("spec.exposeType", s.ExposeType, ExposeNone, ExposePublicIP, ExposeLoadBalancer)
	if c := s.TunnelConfig; c != nil {
		v.replicas("spec.tunnelConfig.Replicas", c.Replicas)
	}
	if c := s.ProxyConfig; c != nil {
		v.replicas("spec.proxyConfig.Replicas", c.Replicas)
		_, err := ParsePorts(c.ProxyHTTPPort)
		v.err("spec.proxyConfig.proxyHTTPPort", err)
		_, err = ParsePorts(c.ProxyHTTPSPort)
		v.err("spec.proxyConfig.proxyHTTPSPort", err)
	}
	type entry struct{ node, kind string }
	seen := map[entry]int{}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		path := fmt.Sprintf("spec.endpoints[%d]", i)
		v.endpoint(path, e)
		k := entry{e.NodeName, e.Type}
		if first, ok := seen[k]; ok {
			v.add(path, "node %s is already listed with type %q in spec.endpoints[%d]", clip(e.NodeName), clip(e.Type), first)
			continue
		}
		seen[k] = i
	}
}

func (v *validation) replicas(field string, n int) {
	if n < 0 || n > MaxReplicas {
		v.add(field, "%d is not from 0 to %d", n, MaxReplicas)
	}
}

func (v *validation) endpoint(path string, e *Endpoint) {
	v.err(path+".nodeName", CheckName(e.NodeName))
	v.oneOf(path+".type", e.Type, TypeProxy, TypeTunnel)
	v.port(path+".port", e.Port)
	v.port(path+".publicPort", e.PublicPort)
	v.oneOf(path+".natType", e.NATType, "", NATFullCone, NATRestrictedCone, NATPortRestrictedCone, NATSymmetric, NATUndefined)
	_, err := e.PublicAddr()
	v.err(path+".publicIP", err)
	config := func(name string) string { return fmt.Sprintf("%s.config[%q]", path, name) }
	_, err = e.PublicKey()
	v.err(config(ConfigPublicKey), err)
	_, err = e.NextPublicKey()
	v.err(config(ConfigNextPublicKey), err)
	_, err = e.PublicHost()
	v.err(config(ConfigPublicHost), err)
	if s := e.Config[ConfigTLSPort]; s != "" {
		_, err = ParsePort(s)
		v.err(config(ConfigTLSPort), err)
	}
}

func (v *validation) port(field string, n int) {
	if n != 0 && !isPort(n) {
		v.add(field, "%d is not a port", n)
	}
}

func (v *validation) node(path string, n *NodeInfo) {
	v.err(path+".nodeName", CheckName(n.NodeName))
	_, err := ParseAddr(n.PrivateIP)
	v.err(path+".privateIP", err)
	for i, s := range n.Subnets {
		_, err := ParseSubnet(s)
		v.err(fmt.Sprintf("%s.subnets[%d]", path, i), err)
	}
}

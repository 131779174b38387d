package domain

import (
	"fmt"
	"strconv"
	"strings"

	"corax/control/api/v1beta1"
)

// Replicas returns how many endpoints of one type are to be active: what is
// wanted, but not more than there are candidates. It is never zero, since that
// turns the mode off for the domain.
func Replicas(wanted, candidates int) int { return max(1, min(wanted, candidates)) }

// UnderNAT reports whether a new endpoint of g is under NAT: those of the edge
// are, unless g is exposed; and all endpoints of a Gateway must say the same, so
// what is listed already counts most.
func UnderNAT(g *v1beta1.Gateway) bool {
	if len(g.Spec.Endpoints) > 0 {
		return g.Spec.Endpoints[0].UnderNAT
	}
	id := Of(g)
	return id != "" && id != Cloud && g.Spec.ExposeType == v1beta1.ExposeNone
}

// written are the Replicas that we wrote last, as in the annotation.
type written struct{ proxy, tunnel int }

func (w written) String() string { return fmt.Sprintf("proxy=%d,tunnel=%d", w.proxy, w.tunnel) }

// parseWritten reads the annotation. What it does not say is zero.
func parseWritten(s string) written {
	var w written
	for field := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(field, "=")
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > v1beta1.MaxReplicas {
			continue
		}
		switch name {
		case v1beta1.TypeProxy:
			w.proxy = n
		case v1beta1.TypeTunnel:
			w.tunnel = n
		}
	}
	return w
}

// change returns what is to be changed of a Gateway of ours, if anything. Replicas
// that a person set stay: they are told by what we wrote last.
func (cfg *Config) change(g *v1beta1.Gateway) (Change, bool) {
	was := parseWritten(g.Metadata.Annotations[v1beta1.AnnotationReplicas])
	proxies, tunnels := candidates(g.Spec.Endpoints)
	is, c := was, Change{Name: g.Metadata.Name}
	if p := g.Spec.ProxyConfig; p != nil && ours(p.Replicas, was.proxy, proxies) {
		is.proxy = Replicas(cfg.ProxyReplicas, proxies)
		c.Proxy = differs(p.Replicas, is.proxy)
	}
	if t := g.Spec.TunnelConfig; t != nil && ours(t.Replicas, was.tunnel, tunnels) {
		is.tunnel = Replicas(cfg.TunnelReplicas, tunnels)
		c.Tunnel = differs(t.Replicas, is.tunnel)
	}
	c.Written = is.String()
	return c, c.Proxy != nil || c.Tunnel != nil || is != was
}

// ours reports whether Replicas are what we wrote, or what is left of it after
// candidates went, which is written together with the endpoints.
func ours(now, wrote, candidates int) bool {
	return wrote > 0 && (now == wrote || now == Replicas(wrote, candidates))
}

func differs(now, wanted int) *int {
	if now == wanted {
		return nil
	}
	return &wanted
}

// candidates counts the listed nodes by type.
func candidates(endpoints []v1beta1.Endpoint) (proxies, tunnels int) {
	seen := make(map[[2]string]bool, len(endpoints))
	for _, e := range endpoints {
		k := [2]string{e.Type, e.NodeName}
		if seen[k] {
			continue
		}
		seen[k] = true
		switch e.Type {
		case v1beta1.TypeProxy:
			proxies++
		case v1beta1.TypeTunnel:
			tunnels++
		}
	}
	return proxies, tunnels
}

// gateway makes a new one. It has no endpoints yet, so it starts with one replica
// of each type.
func (cfg *Config) gateway(id ID, name string) v1beta1.Gateway {
	first := written{Replicas(cfg.ProxyReplicas, 0), Replicas(cfg.TunnelReplicas, 0)}
	g := v1beta1.Gateway{
		TypeMeta: v1beta1.TypeMeta{APIVersion: v1beta1.APIVersion, Kind: v1beta1.Kind},
		Metadata: v1beta1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy},
			Annotations: map[string]string{
				v1beta1.AnnotationDomain:   string(id),
				v1beta1.AnnotationReplicas: first.String(),
			},
		},
		Spec: v1beta1.GatewaySpec{
			NodeSelector: &v1beta1.LabelSelector{MatchLabels: map[string]string{v1beta1.LabelGateway: name}},
			ProxyConfig:  &v1beta1.ProxyConfiguration{Replicas: first.proxy, ProxyHTTPSPort: ExposedPort},
			TunnelConfig: &v1beta1.TunnelConfiguration{Replicas: first.tunnel},
		},
	}
	if id == Cloud {
		g.Spec.ExposeType = cfg.ExposeCloud
	}
	return g
}

package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
)

// endpoints lists n nodes of each type.
func endpoints(proxies, tunnels int, underNAT bool) []v1beta1.Endpoint {
	var list []v1beta1.Endpoint
	for i := range max(proxies, tunnels) {
		name := string(rune('a' + i))
		if i < proxies {
			list = append(list, v1beta1.Endpoint{NodeName: name, Type: v1beta1.TypeProxy, UnderNAT: underNAT})
		}
		if i < tunnels {
			list = append(list, v1beta1.Endpoint{NodeName: name, Type: v1beta1.TypeTunnel, UnderNAT: underNAT})
		}
	}
	return list
}

// TestReplicas checks Replicas = min(wanted, candidates), and whose value it is.
func TestReplicas(t *testing.T) {
	for _, tt := range []struct {
		name                         string
		wantedProxies, wantedTunnels int
		written                      string
		proxies, tunnels             int // in spec
		listed                       []v1beta1.Endpoint
		want                         []string
	}{
		{"nobody listed yet", 2, 2, "proxy=1,tunnel=1", 1, 1, nil, nil},
		{"fewer than wanted", 3, 3, "proxy=1,tunnel=1", 1, 1, endpoints(2, 2, false), []string{"cloud proxy=2,tunnel=2"}},
		{"more than wanted", 1, 2, "proxy=1,tunnel=1", 1, 1, endpoints(3, 3, false), []string{"cloud proxy=1,tunnel=2"}},
		{"candidates left", 3, 3, "proxy=3,tunnel=3", 3, 3, endpoints(1, 2, false), []string{"cloud proxy=1,tunnel=2"}},
		{"who removed them lowered it already", 3, 3, "proxy=3,tunnel=3", 1, 2, endpoints(1, 2, false), []string{"cloud proxy=1,tunnel=2"}},
		{"all left: never off", 3, 3, "proxy=1,tunnel=1", 1, 1, nil, nil},
		{"less is wanted now", 1, 1, "proxy=3,tunnel=3", 3, 3, endpoints(3, 3, false), []string{"cloud proxy=1,tunnel=1"}},
		{"a person turned it off", 3, 3, "proxy=1,tunnel=1", 0, 1, endpoints(3, 3, false), []string{"cloud proxy=1,tunnel=3"}},
		{"a person wants more", 1, 1, "proxy=1,tunnel=1", 2, 4, endpoints(3, 3, false), nil},
		{"a person wants less", 3, 3, "proxy=3,tunnel=3", 1, 2, endpoints(3, 3, false), nil},
		{"nothing was written", 3, 3, "", 1, 1, endpoints(3, 3, false), nil},
		{"nonsense was written", 3, 3, "proxy=,tunnel=99,x=1", 1, 1, endpoints(3, 3, false), nil},
		{"the same node twice counts once", 2, 2, "proxy=1,tunnel=1", 1, 1, append(endpoints(1, 1, false), endpoints(1, 1, false)...), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			cfg.ProxyReplicas, cfg.TunnelReplicas = tt.wantedProxies, tt.wantedTunnels
			g := ours("cloud", domain.Cloud)
			g.Metadata.Annotations[v1beta1.AnnotationReplicas] = tt.written
			g.Spec.ProxyConfig.Replicas, g.Spec.TunnelConfig.Replicas, g.Spec.Endpoints = tt.proxies, tt.tunnels, tt.listed
			p := domain.Decide(cfg, domain.State{Gateways: []domain.Gateway{g}})
			if diff := cmp.Diff(tt.want, summarize(p).Change); diff != "" {
				t.Fatalf("changes (-want +got):\n%s", diff)
			}
			// Written, it is right.
			for _, c := range p.Change {
				if c.Proxy != nil {
					g.Spec.ProxyConfig.Replicas = *c.Proxy
				}
				if c.Tunnel != nil {
					g.Spec.TunnelConfig.Replicas = *c.Tunnel
				}
				g.Metadata.Annotations[v1beta1.AnnotationReplicas] = c.Written
			}
			if again := domain.Decide(cfg, domain.State{Gateways: []domain.Gateway{g}}).Change; len(again) > 0 {
				t.Errorf("and then: %+v", again)
			}
		})
	}
}

func TestUnderNAT(t *testing.T) {
	for _, tt := range []struct {
		name   string
		id     domain.ID
		expose string
		listed []v1beta1.Endpoint
		want   bool
	}{
		{"cloud", "cloud", "", nil, false},
		{"pool", "pool/a", "", nil, true},
		{"alone", "node/a", "", nil, true},
		{"exposed pool", "pool/a", v1beta1.ExposePublicIP, nil, false},
		{"a person's", "", "", nil, false},
		{"a pool that a person knows not to be", "pool/a", "", endpoints(1, 1, false), false},
		{"a cloud that a person knows to be", "cloud", "", endpoints(1, 1, true), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := ours("x", tt.id).Gateway
			g.Spec.ExposeType, g.Spec.Endpoints = tt.expose, tt.listed
			if got := domain.UnderNAT(&g); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// TestNewGateway checks what people and other controllers find in one.
func TestNewGateway(t *testing.T) {
	cfg := config()
	cfg.TunnelReplicas, cfg.ExposeCloud = 3, v1beta1.ExposeLoadBalancer
	p := domain.Decide(cfg, domain.State{Nodes: []domain.Node{node("c1"), node("e1", edgeLabel, "true")}})
	want := v1beta1.Gateway{
		TypeMeta: v1beta1.TypeMeta{APIVersion: "raven.openyurt.io/v1beta1", Kind: "Gateway"},
		Metadata: v1beta1.ObjectMeta{
			Name:        "cloud",
			Labels:      map[string]string{"app.kubernetes.io/managed-by": "corax-controller"},
			Annotations: map[string]string{"corax.io/domain": "cloud", "corax.io/replicas": "proxy=1,tunnel=1"},
		},
		Spec: v1beta1.GatewaySpec{
			NodeSelector: &v1beta1.LabelSelector{MatchLabels: map[string]string{"raven.openyurt.io/gateway": "cloud"}},
			ProxyConfig:  &v1beta1.ProxyConfiguration{Replicas: 1, ProxyHTTPSPort: "10250"},
			TunnelConfig: &v1beta1.TunnelConfiguration{Replicas: 1},
			ExposeType:   "LoadBalancer",
		},
	}
	if diff := cmp.Diff(want, p.Create[0]); diff != "" {
		t.Errorf("cloud (-want +got):\n%s", diff)
	}
	if e := p.Create[1].Spec.ExposeType; e != "" {
		t.Errorf("an edge is exposed: %q", e)
	}
}

package v1beta1_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"corax/control/api/v1beta1"
)

// everything is an object with each field of Raven's schema, as the API server
// prints it.
const everything = `{"apiVersion":"raven.openyurt.io/v1beta1","kind":"Gateway",` +
	`"metadata":{"name":"edge-a","labels":{"l":"1"},"annotations":{"corax.io/cost":"5"},"uid":"u","resourceVersion":"7","generation":3},` +
	`"spec":{"nodeSelector":{"matchLabels":{"raven.openyurt.io/gateway":"edge-a"},` +
	`"matchExpressions":[{"key":"k","operator":"In","values":["v"]}]},` +
	`"proxyConfig":{"Replicas":1,"proxyHTTPPort":"10255","proxyHTTPSPort":"10250,9100"},"tunnelConfig":{"Replicas":2},` +
	`"endpoints":[{"nodeName":"n1","type":"tunnel","port":4500,"underNAT":true,"natType":"Symmetric NAT",` +
	`"publicIP":"203.0.113.1","publicPort":4501,"config":{"corax.io/public-host":"h.example.org"}}],"exposeType":"PublicIP"},` +
	`"status":{"nodes":[{"nodeName":"n1","privateIP":"10.0.0.1","subnets":["10.244.0.0/24"]}],` +
	`"activeEndpoints":[{"nodeName":"n1","type":"tunnel"}]}}`

func TestJSONFields(t *testing.T) {
	var g v1beta1.Gateway
	if err := json.Unmarshal([]byte(everything), &g); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everything, string(got)); diff != "" {
		t.Error(diff)
	}
	if errs := g.Validate(); len(errs) > 0 {
		t.Errorf("good values are refused: %v", errs)
	}
}

// TestYAMLFields checks that the YAML names are the JSON names.
func TestYAMLFields(t *testing.T) {
	var g, back v1beta1.Gateway
	if err := yaml.Unmarshal([]byte(everything), &g); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everything, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestExposedPort(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    v1beta1.Endpoint
		want uint16
	}{
		{"nothing", v1beta1.Endpoint{Type: "tunnel"}, 4500},
		{"port of a tunnel", v1beta1.Endpoint{Type: "tunnel", Port: 4600}, 4600},
		{"port of a proxy", v1beta1.Endpoint{Type: "proxy", Port: 10262}, 4500},
		{"public port first", v1beta1.Endpoint{Type: "tunnel", Port: 4600, PublicPort: 4700}, 4700},
		{"public port of a proxy", v1beta1.Endpoint{Type: "proxy", Port: 10262, PublicPort: 4700}, 4700},
		{"bad public port", v1beta1.Endpoint{Type: "tunnel", Port: 4600, PublicPort: 70000}, 4600},
	} {
		if got := tt.e.ExposedPort(); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestTLSPort(t *testing.T) {
	for s, want := range map[string]uint16{"": 10280, "443": 443, "65535": 65535, "0": 10280, "65536": 10280, "-1": 10280, "https": 10280, " 443": 10280} {
		e := v1beta1.Endpoint{Config: map[string]string{v1beta1.ConfigTLSPort: s}}
		if got := e.TLSPort(); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
	if got := new(v1beta1.Endpoint).TLSPort(); got != 10280 {
		t.Errorf("without config: %d", got)
	}
}

func TestValidate(t *testing.T) {
	g := v1beta1.Gateway{
		Metadata: v1beta1.ObjectMeta{Name: "a b", Annotations: map[string]string{
			v1beta1.AnnotationCost: "-1", v1beta1.AnnotationEpoch: "x",
			v1beta1.AnnotationRelay: "no", v1beta1.AnnotationProxyPorts: "1",
		}},
		Spec: v1beta1.GatewaySpec{
			ExposeType:   "x",
			TunnelConfig: &v1beta1.TunnelConfiguration{Replicas: 9},
			ProxyConfig:  &v1beta1.ProxyConfiguration{Replicas: -1, ProxyHTTPPort: "x", ProxyHTTPSPort: "0"},
			Endpoints: []v1beta1.Endpoint{
				{NodeName: "n", Type: "tunnel"},
				{NodeName: "n", Type: "tunnel", Port: -1, PublicPort: 65536, NATType: "weird", PublicIP: "x", Config: map[string]string{
					"publicKey": "x", "corax.io/next-public-key": "x", "corax.io/public-host": "-", "corax.io/tls-port": "x", "other": "fine",
				}},
				{Type: "vpn"},
			},
		},
		Status: v1beta1.GatewayStatus{
			Nodes:           []v1beta1.NodeInfo{{PrivateIP: "x", Subnets: []string{"10.0.0.0/8", "x"}}},
			ActiveEndpoints: []v1beta1.Endpoint{{NodeName: "n", Type: "proxy", PublicIP: "x"}},
		},
	}
	want := []string{
		`metadata.annotations["corax.io/cost"]`, `metadata.annotations["corax.io/epoch"]`,
		`metadata.annotations["corax.io/proxy-ports"]`, `metadata.annotations["corax.io/relay"]`, `metadata.name`,
		`spec.endpoints[1]`,
		`spec.endpoints[1].config["corax.io/next-public-key"]`, `spec.endpoints[1].config["corax.io/public-host"]`,
		`spec.endpoints[1].config["corax.io/tls-port"]`, `spec.endpoints[1].config["publicKey"]`,
		`spec.endpoints[1].natType`, `spec.endpoints[1].port`, `spec.endpoints[1].publicIP`, `spec.endpoints[1].publicPort`,
		`spec.endpoints[2].nodeName`, `spec.endpoints[2].type`,
		`spec.exposeType`, `spec.proxyConfig.Replicas`, `spec.proxyConfig.proxyHTTPPort`, `spec.proxyConfig.proxyHTTPSPort`,
		`spec.tunnelConfig.Replicas`,
		`status.activeEndpoints[0].publicIP`,
		`status.nodes[0].nodeName`, `status.nodes[0].privateIP`, `status.nodes[0].subnets[1]`,
	}
	var got []string
	for _, e := range g.Validate() {
		got = append(got, e.Field)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

package kube

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"corax/control"
	"corax/control/api/v1beta1"
)

func TestObjectIsLenient(t *testing.T) {
	for _, tt := range []struct {
		name     string
		json     string
		want     v1beta1.Gateway
		problems []string // the field of each, in any order
	}{
		{
			name: "as yurt-manager leaves it",
			json: `{"apiVersion":"raven.openyurt.io/v1beta1","kind":"Gateway","metadata":{"name":"a","resourceVersion":"9","generation":4,
				"managedFields":[{"manager":"yurt-manager"}],"creationTimestamp":"2026-01-01T00:00:00Z","finalizers":["x"]},
				"spec":{"proxyConfig":{"Replicas":1},"tunnelConfig":{"Replicas":1},"later":true,
				"endpoints":[{"nodeName":"n1","type":"tunnel","port":4500,"underNAT":false}]},
				"status":{"nodes":[{"nodeName":"n1","privateIP":"10.0.0.1","subnets":["10.1.0.0/24"]}]}}`,
			want: v1beta1.Gateway{
				Metadata: v1beta1.ObjectMeta{Name: "a"},
				Spec: v1beta1.GatewaySpec{
					ProxyConfig: &v1beta1.ProxyConfiguration{Replicas: 1}, TunnelConfig: &v1beta1.TunnelConfiguration{Replicas: 1},
					Endpoints: []v1beta1.Endpoint{{NodeName: "n1", Type: "tunnel", Port: 4500}},
				},
				Status: v1beta1.GatewayStatus{Nodes: []v1beta1.NodeInfo{{NodeName: "n1", PrivateIP: "10.0.0.1", Subnets: []string{"10.1.0.0/24"}}}},
			},
		},
		{
			name: "a small letter is another field",
			json: `{"metadata":{"name":"a"},"spec":{"tunnelConfig":{"replicas":5,"Replicas":1}}}`,
			want: v1beta1.Gateway{
				Metadata: v1beta1.ObjectMeta{Name: "a"},
				Spec:     v1beta1.GatewaySpec{TunnelConfig: &v1beta1.TunnelConfiguration{Replicas: 1}},
			},
		},
		{
			name: "a field of another type costs itself",
			json: `{"metadata":{"name":"a"},"spec":{"tunnelConfig":{"Replicas":"one"},"exposeType":"PublicIP"}}`,
			want: v1beta1.Gateway{
				Metadata: v1beta1.ObjectMeta{Name: "a"},
				Spec:     v1beta1.GatewaySpec{TunnelConfig: &v1beta1.TunnelConfiguration{}, ExposeType: "PublicIP"},
			},
			problems: []string{"spec.tunnelConfig.Replicas"},
		},
		{
			name: "a bad value is a problem",
			json: `{"metadata":{"name":"a"},"spec":{"endpoints":[{"nodeName":"n1","type":"tunnel","publicIP":"nowhere"}]}}`,
			want: v1beta1.Gateway{
				Metadata: v1beta1.ObjectMeta{Name: "a"},
				Spec:     v1beta1.GatewaySpec{Endpoints: []v1beta1.Endpoint{{NodeName: "n1", Type: "tunnel", PublicIP: "nowhere"}}},
			},
			problems: []string{"spec.endpoints[0].publicIP"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o object
			if err := json.Unmarshal([]byte(tt.json), &o); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, o.gateway); d != "" {
				t.Error(d)
			}
			var fields []string
			for _, p := range o.problems {
				if p.Object != "gateway/a" {
					t.Errorf("problem of %q", p.Object)
				}
				fields = append(fields, p.Field)
			}
			if d := cmp.Diff(tt.problems, fields); d != "" {
				t.Errorf("problems: %s", d)
			}
		})
	}
}

// FuzzObject reads anything: a list must not be lost for one object.
func FuzzObject(f *testing.F) {
	f.Add(`{"metadata":{"name":"a"},"spec":{"endpoints":[{"nodeName":1}]}}`)
	f.Add(`{"metadata":{"name":5},"spec":[]}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, doc string) {
		if !json.Valid([]byte(doc)) || strings.TrimSpace(doc) == "null" {
			return
		}
		var l objectList
		if err := json.Unmarshal([]byte(`{"items":[`+doc+`,{"metadata":{"name":"z"}}]}`), &l); err != nil {
			t.Fatal(err)
		}
		if len(l.Items) != 2 || l.Items[1].Name != "z" {
			t.Fatalf("the object after it is lost: %v", l.Items)
		}
		_ = control.SortProblems(l.Items[0].problems)
	})
}

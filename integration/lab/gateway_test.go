//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"corax/control/api/v1beta1"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// TestGatewayYAML reads what the lab writes with the real types.
func TestGatewayYAML(t *testing.T) {
	dir := t.TempDir()
	g := Gateway{
		Name: "cloud", ExposeType: "PublicIP", Annotations: map[string]string{"corax.io/cost": "5"},
		Endpoints: []Endpoint{
			{Node: "n1", PublicIP: netip.MustParseAddr("203.0.113.130"), PublicKey: "key1"},
			{Node: "n2", UnderNAT: true, Port: 4600, Config: map[string]string{"corax.io/tls-port": "443"}},
		},
		Nodes:  []GatewayNode{{Node: "n1", IP: netip.MustParseAddr("203.0.113.130"), Subnets: prefixes("10.244.0.1/24")}},
		Active: []string{"n2"},
	}
	if err := g.Write(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "cloud.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	if tree["apiVersion"] != "raven.openyurt.io/v1beta1" || tree["kind"] != "Gateway" {
		t.Errorf("%v %v", tree["apiVersion"], tree["kind"])
	}
	var spec v1beta1.GatewaySpec
	var status v1beta1.GatewayStatus
	for key, into := range map[string]any{"spec": &spec, "status": &status} {
		j, err := json.Marshal(tree[key])
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(j))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if spec.TunnelConfig.Replicas != 1 || spec.ExposeType != "PublicIP" || len(spec.Endpoints) != 2 {
		t.Errorf("spec %+v", spec)
	}
	if diff := cmp.Diff(spec.Endpoints[1:], status.ActiveEndpoints); diff != "" {
		t.Error(diff)
	}
	if e := spec.Endpoints[0]; e.Port != 4500 || e.PublicIP != "203.0.113.130" || e.UnderNAT || e.Config["publicKey"] != "key1" {
		t.Errorf("endpoint %+v", e)
	}
	if n := status.Nodes[0]; n.PrivateIP != "203.0.113.130" || n.Subnets[0] != "10.244.0.0/24" {
		t.Errorf("node %+v", n)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("the directory holds %v", entries)
	}
}

//go:build linux

package kube_test

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"corax/integration/kube/cluster"
)

// endpoint makes an entry of spec.endpoints; further holds names and values.
func endpoint(node, kind string, further ...any) object {
	e := object{"nodeName": node, "type": kind}
	for i := 0; i < len(further); i += 2 {
		e[further[i].(string)] = further[i+1]
	}
	return e
}

func endpoints(e ...any) object { return object{"endpoints": e} }

// TestCRD shows what the API server takes and refuses by the definition alone.
func TestCRD(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	c.Apply(t, crd)
	admin := gatewaysOf(t, c.Config())

	many := func(n int) object {
		var list []any
		for i := range n {
			list = append(list, endpoint(fmt.Sprintf("node-%d", i), "tunnel", "underNAT", true, "config", object{"publicKey": strings.Repeat("k", 44)}))
		}
		return endpoints(list...)
	}
	tests := []struct {
		name    string
		spec    object
		refused string // part of the message; empty: accepted
	}{
		{"nothing", object{}, ""},
		{"as yurt-manager leaves it", object{
			"nodeSelector": object{"matchLabels": object{"raven.openyurt.io/gateway": "gw"}},
			"proxyConfig":  object{"Replicas": int64(1), "proxyHTTPPort": "10255,9445", "proxyHTTPSPort": "10250, 9100"},
			"tunnelConfig": object{"Replicas": int64(1)},
			"endpoints": []any{
				endpoint("node-a", "proxy", "port", int64(10262), "underNAT", false, "publicIP", ""),
				endpoint("node-a", "tunnel", "port", int64(4500), "underNAT", false, "publicIP", "203.0.113.7", "config", object{}),
			},
			"exposeType": "LoadBalancer",
		}, ""},
		{"exposed by nothing", object{"exposeType": "", "endpoints": []any{endpoint("a", "tunnel", "underNAT", true)}}, ""},
		{"an IPv6 publicIP", endpoints(endpoint("a", "tunnel", "publicIP", "2001:db8::1")), ""},
		{"64 endpoints", many(64), ""},
		{"8 tunnel replicas", object{"tunnelConfig": object{"Replicas": int64(8)}}, ""},
		{"layers turned off", object{"tunnelConfig": object{"Replicas": int64(0)}, "proxyConfig": object{"Replicas": int64(0)}}, ""},

		{"an unknown exposeType", object{"exposeType": "NodePort"}, "exposeType"},
		{"exposed under NAT", object{"exposeType": "PublicIP", "endpoints": []any{endpoint("a", "tunnel", "underNAT", true)}}, "under NAT"},
		{"mixed underNAT", endpoints(endpoint("a", "tunnel", "underNAT", true), endpoint("b", "tunnel")), "same underNAT"},
		{"more proxy replicas than endpoints", object{"proxyConfig": object{"Replicas": int64(2)}, "endpoints": []any{endpoint("a", "proxy")}}, "fewer proxy endpoints"},
		{"ports that are none", object{"proxyConfig": object{"Replicas": int64(1), "proxyHTTPPort": "http"}}, "proxyHTTPPort"},
		{"9 tunnel replicas", object{"tunnelConfig": object{"Replicas": int64(9)}}, "tunnelConfig.Replicas"},
		{"negative replicas", object{"tunnelConfig": object{"Replicas": int64(-1)}}, "tunnelConfig.Replicas"},
		{"replicas in small letters", object{"tunnelConfig": object{"replicas": int64(1)}}, "tunnelConfig.Replicas"},
		{"65 endpoints", many(65), "endpoints"},
		{"an unknown type", endpoints(endpoint("a", "relay")), "type"},
		{"no node name", endpoints(object{"type": "tunnel"}), "nodeName"},
		{"an empty node name", endpoints(endpoint("", "tunnel")), "nodeName"},
		{"a port beyond", endpoints(endpoint("a", "tunnel", "port", int64(65536))), "port"},
		{"a name as publicIP", endpoints(endpoint("a", "tunnel", "publicIP", "hub.example.com")), "publicIP"},
		{"a long natType", endpoints(endpoint("a", "tunnel", "natType", strings.Repeat("n", 65))), "natType"},
		{"a long config value", endpoints(endpoint("a", "tunnel", "config", object{"publicKey": strings.Repeat("k", 1025)})), "config"},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := admin.Create(t.Context(), newGateway(fmt.Sprintf("gw-%d", i), test.spec), metav1.CreateOptions{})
			switch {
			case test.refused == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.refused != "" && !apierrors.IsInvalid(err):
				t.Errorf("not refused as invalid: %v", err)
			case test.refused != "" && !strings.Contains(err.Error(), test.refused):
				t.Errorf("refused, but %q does not say %q", err, test.refused)
			}
		})
	}

	t.Run("unknown fields stay", func(t *testing.T) {
		spec := endpoints(endpoint("a", "tunnel", "later", "x"))
		spec["alsoLater"] = object{"y": int64(1)}
		admin.create(t, "later", spec)
		got := admin.get(t, "later")
		if n, _, _ := unstructured.NestedInt64(got.Object, "spec", "alsoLater", "y"); n != 1 {
			t.Errorf("spec.alsoLater is lost: %v", got.Object["spec"])
		}
		list, _, _ := unstructured.NestedSlice(got.Object, "spec", "endpoints")
		if len(list) != 1 || list[0].(object)["later"] != "x" {
			t.Errorf("a field of an endpoint is lost: %v", list)
		}
	})

	t.Run("status is a subresource", func(t *testing.T) {
		g := newGateway("status", object{})
		g.Object["status"] = object{"summary": object{"active": "nobody"}}
		if _, err := admin.Create(t.Context(), g, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if status := admin.get(t, "status").Object["status"]; status != nil {
			t.Errorf("a status was written with the object: %v", status)
		}
		admin.status(t, "status", object{
			"nodes":      []any{object{"nodeName": "a", "privateIP": "192.168.1.10", "subnets": []any{"10.244.1.0/24"}}},
			"summary":    object{"active": "a,b", "expose": "203.0.113.7:4500", "nodes": int64(1), "ready": "2/2"},
			"conditions": []any{object{"type": "Ready", "status": "True", "reason": "Elected", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}},
		})
		out, err := c.Kubectl(t, nil, "get", "gw", "status", "--no-headers")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if f := strings.Fields(string(out)); len(f) < 5 || strings.Join(f[:5], " ") != "status a,b 203.0.113.7:4500 1 2/2" {
			t.Errorf("kubectl get shows %q", out)
		}
		if out, err := c.Kubectl(t, nil, "wait", "--for=condition=Ready", "--timeout=10s", "gateway/status"); err != nil {
			t.Errorf("kubectl wait: %v: %s", err, out)
		}
	})

	t.Run("v1alpha1 is not served", func(t *testing.T) {
		if out, err := c.Kubectl(t, nil, "get", "gateways.v1alpha1.raven.openyurt.io"); err == nil {
			t.Errorf("kubectl get works: %s", out)
		}
	})
}

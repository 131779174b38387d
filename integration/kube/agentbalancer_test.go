//go:build linux

package kube_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"corax/control"
	"corax/control/kube"
	"corax/integration/kube/cluster"
)

// ravenService makes a Service as Raven's controller does for a node's tunnel.
func ravenService(t *testing.T, c *cluster.Cluster, gateway, node string, port int32) *corev1.Service {
	t.Helper()
	s, err := c.Client.CoreV1().Services("kube-system").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: "x-raven-tunnel-svc-" + gateway + "-" + node,
			Labels: map[string]string{
				"raven.openyurt.io/gateway": gateway, "raven.openyurt.io/gateway-type": "tunnel", "raven.openyurt.io/endpoints-name": node,
			},
		},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolUDP, Port: port}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reach gives a Service the address of its balancer.
func reach(t *testing.T, c *cluster.Cluster, s *corev1.Service, at ...corev1.LoadBalancerIngress) *corev1.Service {
	t.Helper()
	s.Status.LoadBalancer.Ingress = at
	s, err := c.Client.CoreV1().Services(s.Namespace).UpdateStatus(t.Context(), s, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAgentPublishesItsBalancer has no controller of ours: with the rights of
// preset openyurt the agent writes the address of its own Service, as it changes.
func TestAgentPublishesItsBalancer(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	p := presets()[1]
	seed(t, c, p)
	cfg := c.AgentConfig(t, "cloud-gw", p.agent)
	armed(t, userOf(t, cfg))
	admin := gatewaysOf(t, c.Config())
	if err := admin.Delete(t.Context(), "probe", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	exposed := endpoints(
		endpoint("cloud-gw", "tunnel", "port", int64(4500), "underNAT", false, "publicIP", "192.0.2.1", "config", object{"theirs": "1"}),
		endpoint("cloud-1", "tunnel", "underNAT", false, "config", object{"publicKey": keyOf("1")}),
		endpoint("cloud-gw", "proxy", "underNAT", false),
	)
	exposed["exposeType"] = "LoadBalancer"
	if err := admin.merge(t.Context(), "cloud", object{"spec": exposed}); err != nil {
		t.Fatal(err)
	}
	reach(t, c, ravenService(t, c, "cloud", "cloud-1", 4501), corev1.LoadBalancerIngress{IP: "203.0.113.9"})
	own := reach(t, c, ravenService(t, c, "cloud", "cloud-gw", 4502), corev1.LoadBalancerIngress{IP: "203.0.113.1"})
	mark := c.Mark(t)

	client, err := kube.New(kube.Config{
		Kubeconfig: c.Kubeconfig(t, cfg), Node: "cloud-gw", Balancers: true, Update: func(control.Snapshot) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client.Publish(kube.Entry{PublicKey: keyOf("c")})

	stands := func(what string, config object, further ...any) {
		t.Helper()
		tunnel := append([]any{"port", int64(4500), "underNAT", false, "config", object{"publicKey": keyOf("c"), "theirs": "1"}}, further...)
		proxy := append([]any{"underNAT", false, "config", object{"publicKey": keyOf("c")}}, further...)
		want := []any{
			endpoint("cloud-gw", "tunnel", tunnel...),
			endpoint("cloud-1", "tunnel", "underNAT", false, "config", object{"publicKey": keyOf("1")}),
			endpoint("cloud-gw", "proxy", proxy...),
		}
		for _, i := range []int{0, 2} {
			for k, v := range config {
				want[i].(object)["config"].(object)[k] = v
			}
		}
		cluster.Eventually(t, 2*time.Minute, what, func(context.Context) error {
			got, _, err := unstructured.NestedSlice(admin.get(t, "cloud").Object, "spec", "endpoints")
			if err == nil && !cmp.Equal(want, got) {
				err = fmt.Errorf("-want +got:\n%s", cmp.Diff(want, got))
			}
			return err
		})
	}
	stands("the address", nil, "publicIP", "203.0.113.1", "publicPort", int64(4502))
	if _, err := c.Client.CoreV1().ConfigMaps("kube-system").Patch(t.Context(), "raven-cfg", types.MergePatchType,
		[]byte(`{"data":{"loadbalancer-ip":"203.0.113.1","eip-ip":"198.51.100.7"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	stands("the public address bound to it", nil, "publicIP", "198.51.100.7", "publicPort", int64(4502))
	reach(t, c, own, corev1.LoadBalancerIngress{Hostname: "lb.example.com"})
	stands("the host name", object{"corax.io/public-host": "lb.example.com"}, "publicPort", int64(4502))
	if ps := client.State().Problems(); len(ps) != 0 {
		t.Errorf("problems %q", ps)
	}
	var patches []cluster.Write
	for _, w := range c.Writes(t, mark, func(w cluster.Write) bool { return strings.HasSuffix(w.User, ":"+p.agent) }) {
		if w.Resource == "gateways" {
			patches = append(patches, w)
		}
	}
	if len(patches) != 3 || slices.ContainsFunc(patches, func(w cluster.Write) bool { return w.Code != 200 }) {
		t.Errorf("three changes, and these writes: %v", patches)
	}
}

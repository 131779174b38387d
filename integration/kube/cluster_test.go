//go:build linux

package kube_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"corax/integration/kube/cluster"
)

// clientset returns a client for a configuration.
func clientset(t *testing.T, cfg *rest.Config) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCluster shows that the tests' control plane does what the others build on.
func TestCluster(t *testing.T) {
	c := cluster.Start(t, cluster.Options{Controllers: cluster.UsualControllers()})
	c.AddNode(t, cluster.Node{
		Name: "edge-a-gw", IPs: []netip.Addr{netip.MustParseAddr("192.168.1.10")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")},
	})

	t.Run("token names the node", func(t *testing.T) {
		agent := clientset(t, c.AgentConfig(t, "edge-a-gw", "corax-agent"))
		got, err := agent.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		user := got.Status.UserInfo
		if user.Username != "system:serviceaccount:kube-system:corax-agent" {
			t.Errorf("user is %s", user.Username)
		}
		if nodes := user.Extra["authentication.kubernetes.io/node-name"]; len(nodes) != 1 || nodes[0] != "edge-a-gw" {
			t.Errorf("the token's node is %v", nodes)
		}
		got, err = clientset(t, c.AccountConfig(t, "corax-agent")).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if nodes := got.Status.UserInfo.Extra["authentication.kubernetes.io/node-name"]; len(nodes) != 0 {
			t.Errorf("a token bound to nothing names node %v", nodes)
		}
	})

	t.Run("node state", func(t *testing.T) {
		c.SetReady(t, "edge-a-gw", false)
		c.Cordon(t, "edge-a-gw", true)
		c.Label(t, "edge-a-gw", map[string]string{"zone": "z1"})
		n, err := c.Client.CoreV1().Nodes().Get(t.Context(), "edge-a-gw", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n.Status.Conditions[0].Status != corev1.ConditionUnknown || !n.Spec.Unschedulable || n.Labels["zone"] != "z1" {
			t.Errorf("node has conditions %v, unschedulable %v, labels %v", n.Status.Conditions, n.Spec.Unschedulable, n.Labels)
		}
		if len(n.Spec.PodCIDRs) != 2 || len(n.Status.Addresses) != 2 {
			t.Errorf("node has pod CIDRs %v, addresses %v", n.Spec.PodCIDRs, n.Status.Addresses)
		}
	})

	t.Run("writes are seen", func(t *testing.T) {
		mark := c.Mark(t)
		agent := clientset(t, c.AgentConfig(t, "edge-a-gw", "corax-agent"))
		_, err := agent.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("an account without rights gets %v", err)
		}
		writes := c.Writes(t, mark, func(w cluster.Write) bool { return w.Resource == "configmaps" && w.Namespace == "default" })
		if len(writes) != 1 || writes[0].Code != 403 || writes[0].Verb != "create" {
			t.Errorf("the audit log has %v", writes)
		}
	})

	t.Run("controllers act", func(t *testing.T) {
		cluster.Eventually(t, time.Minute, "the default service account", func(ctx context.Context) error {
			_, err := c.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
			return err
		})
	})

	t.Run("API server stops and returns", func(t *testing.T) {
		c.StopAPI(t)
		if err := c.Ready(t.Context()); err == nil {
			t.Error("a stopped API server answers")
		}
		c.StartAPI(t)
		if _, err := c.Client.CoreV1().Nodes().Get(t.Context(), "edge-a-gw", metav1.GetOptions{}); err != nil {
			t.Errorf("after the return: %v", err)
		}
		c.KillAPI(t)
		c.StartAPI(t)
	})
}

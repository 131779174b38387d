//go:build linux

package kube_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

// fewRights are those of a controller from which somebody took the Services.
const fewRights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: few}
rules:
- {apiGroups: [raven.openyurt.io], resources: [gateways, gateways/status], verbs: ["*"]}
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch, patch]}
- {apiGroups: [""], resources: [configmaps], verbs: ["*"]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: ["*"]}
- {apiGroups: ["", events.k8s.io], resources: [events], verbs: [create, patch]}
- {apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests], verbs: [get, list, watch]}
- {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: few}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: few}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: few}]
`

const moreRights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: more}
rules:
- {apiGroups: [""], resources: [services, endpoints], verbs: ["*"]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: more}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: more}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: few}]
`

// TestControllerLacksRights: without the right to read Services, Gateways are made and
// elected all the same; what is off is told, and is on as soon as the right is given.
func TestControllerLacksRights(t *testing.T) {
	t.Parallel()
	c := domainCluster(t)
	c.ApplyYAML(t, fewRights)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	health := l.Addr().String()
	_ = l.Close()
	runController(t, c, func(cfg *controller.Config) {
		cfg.Kubeconfig, cfg.HealthAddr = c.Kubeconfig(t, c.UserConfig(t, "few")), health
		cfg.ExposeCloud, cfg.LeaderElect = "PublicIP", false
	})
	c.AddNode(t, cluster.Node{Name: "c1"})
	ready := func(ctx context.Context) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", nil)
		if err != nil {
			return "", err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	g := gatewaysOf(t, c.Config())
	cluster.Eventually(t, time.Minute, "a Gateway with an active endpoint", func(ctx context.Context) error {
		o, err := g.Get(ctx, "cloud", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if text := fmt.Sprint(o.Object["status"]); !strings.Contains(text, "c1") {
			return fmt.Errorf("status %s", text)
		}
		text, err := ready(ctx)
		if err != nil || !strings.Contains(text, "names is off: no right to list and watch services in kube-system") {
			return fmt.Errorf("ready: %q, %w", text, err)
		}
		return hasEvent(ctx, c, "ReconcilerOff", "gateways.raven.openyurt.io")
	})
	c.ApplyYAML(t, moreRights)
	cluster.Eventually(t, time.Minute, "the proxy's Service", func(ctx context.Context) error {
		if _, err := c.Client.CoreV1().Services("kube-system").Get(ctx, proxyService, metav1.GetOptions{}); err != nil {
			return err
		}
		if text, err := ready(ctx); err != nil || text != "ok\n" {
			return fmt.Errorf("ready: %q, %w", text, err)
		}
		return nil
	})
}

//go:build linux

package proxy_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"corax/integration/kube/cluster"
)

// metricsServer is what metrics-server has in a cluster, but for its Pod: it runs
// beside the API server.
const metricsServer = `
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  {group: metrics.k8s.io, version: v1beta1, groupPriorityMinimum: 100, versionPriority: 100,
   insecureSkipTLSVerify: true, service: {name: metrics-server, namespace: kube-system}}
---
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {ports: [{name: https, port: 443, targetPort: 4443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server-1, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
endpoints: [{addresses: ["%s"]}]
ports: [{name: https, port: 4443, protocol: TCP}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: metrics-server}
rules:
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
- {apiGroups: [""], resources: [pods, nodes], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: metrics-server}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: metrics-server}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: metrics-server-delegator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: metrics-server-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
`

// testTop has kubectl top show nodes and Pods.
func (w *world) testTop(t *testing.T) {
	defer w.startMetricsServer(t)()
	for _, node := range kubeletNodes() {
		w.awaitTop(t, node)
	}
}

// startMetricsServer runs metrics-server, which dials kubelets itself, by the same
// host names as the API server.
func (w *world) startMetricsServer(t *testing.T) (stop func()) {
	t.Helper()
	file := w.Cluster.Kubeconfig(t, w.Cluster.AccountConfig(t, "metrics-server"))
	w.Cluster.ApplyYAML(t, fmt.Sprintf(metricsServer, w.ControlNode().IP))
	p, err := w.Control.Start("metrics-server", cluster.WithHosts(w.hosts(), exec.Command(filepath.Join(cluster.Tools(t), "metrics-server"),
		"--secure-port=4443", "--cert-dir="+t.TempDir(), "--kubeconfig="+file,
		"--authentication-kubeconfig="+file, "--authorization-kubeconfig="+file,
		"--kubelet-preferred-address-types=Hostname,InternalIP", "--kubelet-certificate-authority="+w.Cluster.CAFile(),
		"--metric-resolution=10s", "--kubelet-request-timeout=5s")))
	must(t, err)
	return func() { _ = p.Kill() }
}

func (w *world) awaitTop(t *testing.T, node string) {
	t.Helper()
	cluster.Eventually(t, 90*time.Second, "kubectl top of "+node, func(context.Context) error {
		for what, name := range map[string]string{"node": node, "pod": pod(node)} {
			out, err := w.Cluster.Kubectl(t, nil, "top", what, name, "--no-headers")
			if err != nil || !regexp.MustCompile(`^`+name+` +\d+m +.*\d+Mi`).Match(out) {
				return fmt.Errorf("%w: %q", err, out)
			}
		}
		return nil
	})
}

//go:build linux

package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"corax/integration/lab"
)

// socket is where a front takes CONNECT from the API server beside it.
func socket(n *lab.Node) string { return filepath.Join(n.Dir(), "connect.sock") }

const (
	selectSocket = `
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: "%s"}}}
`
	selectTCP = `
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport: {tcp: {url: "https://%s:10295", tlsConfig: {caBundle: "%s", clientCert: "%s", clientKey: "%s"}}}
`
)

// testEgress has the API server reach kubelets by HTTP CONNECT, with neither DNS nor
// a hosts file.
func (w *world) testEgress(t *testing.T) {
	cert, key := w.Cluster.Issue(t, "egress")
	for _, tt := range []struct {
		name, config string
		doctor       []string // the same for the doctor
	}{
		{"unix socket", fmt.Sprintf(selectSocket, socket(w.ControlNode())), []string{"--connect", "unix:" + socket(w.ControlNode())}},
		{"mTLS", fmt.Sprintf(selectTCP, w.Node("cloud-gw").IP, w.Cluster.CAFile(), cert, key), []string{
			"--connect", fmt.Sprintf("https://%s:10295", w.Node("cloud-gw").IP),
			"--connect-ca", w.Cluster.CAFile(), "--connect-cert", cert, "--connect-key", key,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "egress.yaml")
			must(t, os.WriteFile(file, []byte(tt.config), 0o600))
			w.Cluster.StopAPI(t)
			w.Cluster.SetAPI("", "--egress-selector-config-file="+file)
			w.Cluster.StartAPI(t)
			for _, node := range kubeletNodes() {
				if got := w.kubectl(t, "exec", pod(node), "-c", "main", "--", "hostname"); got != node {
					t.Errorf("exec on %s: %q", node, got)
				}
				if got := w.kubectl(t, "logs", pod(node), "-c", "main", "--limit-bytes=40"); !strings.HasPrefix(got, node+" 0\n") {
					t.Errorf("logs of %s: %q", node, got)
				}
			}
			out, err := w.Agent(w.ControlNode().Name).Command(t.Context(), append([]string{"doctor", "--node", "edge-a-1"}, tt.doctor...)...)
			if err != nil || !strings.Contains(string(out), "ok    kubelet  TLS ends at system:node:edge-a-1") {
				t.Errorf("the doctor: %v\n%s", err, out)
			}
			if tt.name == "unix socket" { // Services go the same way; the node of the API server has them
				stop := w.startMetricsServer(t)
				w.awaitTop(t, "edge-a-1")
				stop()
			}
			if out, err := w.Cluster.Kubectl(t, nil, "get", "--raw", "/api/v1/nodes/edge-a-1/proxy/healthz"); err == nil {
				t.Errorf("the API server resolves node names somehow: %s", out)
			}
		})
	}
	w.Cluster.StopAPI(t)
	w.Cluster.SetAPI(w.hosts())
	w.Cluster.StartAPI(t)
}

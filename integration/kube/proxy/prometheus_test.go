//go:build linux

package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"corax/integration/kube/cluster"
)

// exporterPort is that of the usual node-exporter.
const exporterPort = 9100

// scraper may read the metrics of nodes, and nothing else.
const scraper = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: scraper}
rules: [{apiGroups: [""], resources: [nodes/metrics], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: scraper}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: scraper}
subjects: [{kind: ServiceAccount, name: scraper, namespace: kube-system}]
`

// reader may read whatever nodes serve.
const reader = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [nodes/metrics, nodes/proxy], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: kube-system}]
`

// scrapeConfig reads the kubelets and the exporters by the names of their nodes,
// and tries it as nobody and as somebody without rights.
const scrapeConfig = `
global: {scrape_interval: 2s, scrape_timeout: 2s}
scrape_configs:
- job_name: kubelet
  scheme: https
  tls_config: {ca_file: "%[1]s"}
  authorization: {credentials_file: "%[2]s"}
  static_configs: [{targets: ["edge-a-1:10250", "edge-b-1:10250", "edge-c-gw:10250"]}]
- job_name: exporter
  authorization: {credentials_file: "%[2]s"}
  static_configs: [{targets: ["edge-a-1:9100", "edge-b-1:9100"]}]
- job_name: read-only
  authorization: {credentials_file: "%[2]s"}
  static_configs: [{targets: ["edge-a-1:10255", "edge-b-1:10255"]}]
- job_name: anonymous
  static_configs: [{targets: ["edge-a-1:9100"]}]
- job_name: stranger
  authorization: {credentials_file: "%[3]s"}
  static_configs: [{targets: ["edge-a-1:9100"]}]
- job_name: unlisted
  authorization: {credentials_file: "%[2]s"}
  static_configs: [{targets: ["edge-a-1:9445"]}]
`

// serveExporters starts something like a node-exporter on the two nodes that share
// their IP.
func (w *world) serveExporters(t *testing.T) {
	t.Helper()
	for _, name := range []string{"edge-a-1", "edge-b-1"} {
		n := w.Node(name)
		ln, err := n.ListenTCP(netip.AddrPortFrom(n.IP, exporterPort))
		must(t, err)
		s := &http.Server{Handler: exporter(name), ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = s.Serve(ln) }()
		t.Cleanup(func() { _ = s.Close() })
	}
}

func exporter(node string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "test_node{node=%q} 1\n", node)
	})
	mux.HandleFunc("/flood", flood)
	mux.HandleFunc("/ticks", ticks)
	return mux
}

// testPrometheus has a Prometheus scrape two nodes that share their IP.
func (w *world) testPrometheus(t *testing.T) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	token, stranger := filepath.Join(dir, "token"), filepath.Join(dir, "stranger")
	w.Cluster.ApplyYAML(t, scraper)
	must(t, os.WriteFile(token, []byte(w.Cluster.AccountConfig(t, "scraper").BearerToken), 0o600),
		os.WriteFile(stranger, []byte(w.Cluster.AccountConfig(t, "stranger").BearerToken), 0o600))
	config := filepath.Join(dir, "prometheus.yaml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, scrapeConfig, w.Cluster.CAFile(), token, stranger), 0o600))
	p, err := w.Control.Start("prometheus", cluster.WithHosts(w.hosts(), exec.Command(program, "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:9090")))
	must(t, err)
	defer func() { _ = p.Kill() }()

	for _, tt := range []struct{ job, instance, fault string }{ // fault: empty when it is scraped
		{"kubelet", "edge-a-1:10250", ""},
		{"kubelet", "edge-b-1:10250", ""},
		{"kubelet", "edge-c-gw:10250", ""},
		{"exporter", "edge-a-1:9100", ""},
		{"exporter", "edge-b-1:9100", ""},
		{"read-only", "edge-a-1:10255", ""},
		{"read-only", "edge-b-1:10255", ""},
		{"anonymous", "edge-a-1:9100", "401"},
		{"stranger", "edge-a-1:9100", "403"},
		{"unlisted", "edge-a-1:9445", "502"}, // nobody listens there
	} {
		cluster.Eventually(t, time.Minute, tt.job+" "+tt.instance, func(ctx context.Context) error {
			health, fault, err := w.target(ctx, tt.job, tt.instance)
			switch {
			case err != nil:
				return err
			case tt.fault == "" && health == "up", tt.fault != "" && health == "down" && strings.Contains(fault, tt.fault):
				return nil
			}
			return fmt.Errorf("it is %s: %s", health, fault)
		})
	}
	// Whose metrics they are, they say themselves.
	for query, want := range map[string]string{
		`test_node{instance="edge-a-1:9100"}`: "edge-a-1", `test_node{instance="edge-b-1:9100"}`: "edge-b-1",
		`kubelet_node_name{instance="edge-a-1:10250"}`: "edge-a-1", `kubelet_node_name{instance="edge-b-1:10250"}`: "edge-b-1",
		`kubelet_node_name{instance="edge-a-1:10255"}`: "edge-a-1", `kubelet_node_name{instance="edge-b-1:10255"}`: "edge-b-1",
	} {
		var got struct {
			Data struct {
				Result []struct{ Metric map[string]string }
			}
		}
		must(t, w.prometheus(t.Context(), "/api/v1/query?query="+query, &got))
		if r := got.Data.Result; len(r) != 1 || r[0].Metric["node"] != want {
			t.Errorf("%s is %v, not that of %s", query, r, want)
		}
	}
}

// target returns how Prometheus finds a target.
func (w *world) target(ctx context.Context, job, instance string) (health, fault string, err error) {
	var got struct {
		Data struct {
			ActiveTargets []struct {
				Labels            map[string]string
				Health, LastError string
			}
		}
	}
	if err := w.prometheus(ctx, "/api/v1/targets", &got); err != nil {
		return "", "", err
	}
	for _, target := range got.Data.ActiveTargets {
		if target.Labels["job"] == job && target.Labels["instance"] == instance {
			return target.Health, target.LastError, nil
		}
	}
	return "", "", fmt.Errorf("no such target")
}

// prometheus asks its API.
func (w *world) prometheus(ctx context.Context, path string, into any) error {
	b, err := w.get(ctx, "http://127.0.0.1:9090"+path, "")
	if err == nil {
		err = json.Unmarshal([]byte(b), into)
	}
	return err
}

// get fetches a URL from where the control plane is, with a token when there is one.
func (w *world) get(ctx context.Context, url, token string) (string, error) {
	resp, err := w.open(ctx, url, token)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

// open begins to fetch a URL, on a connection of its own.
func (w *world) open(ctx context.Context, url, token string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return w.client.Do(req)
}

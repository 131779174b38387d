//go:build linux

package proxy_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"corax/integration/kube/cluster"
)

// testTermination asks each front over HTTPS by the name of the Service: the
// certificate is one that the cluster signed, and the kubelet behind the front sees
// the caller's own token. Two nodes share their IP.
func (w *world) testTermination(t *testing.T) {
	w.Cluster.ApplyYAML(t, scraper)
	token := w.Cluster.AccountConfig(t, "scraper").BearerToken
	stranger := w.Cluster.AccountConfig(t, "stranger").BearerToken
	for _, front := range fronts() {
		for _, node := range []string{"edge-a-1", "edge-b-1", "edge-c-gw", "cloud-1"} {
			cluster.Eventually(t, time.Minute, "metrics of "+node+" by "+front, func(ctx context.Context) error {
				code, body, err := w.terminated(ctx, front, node, token)
				if err == nil && (code != http.StatusOK || !strings.Contains(body, fmt.Sprintf("kubelet_node_name{node=%q}", node))) {
					err = fmt.Errorf("%d %.200s", code, body)
				}
				return err
			})
		}
		for _, tt := range []struct {
			name, node, token string
			want              int
		}{
			{"nobody", "edge-a-1", "", http.StatusUnauthorized},
			{"a bad token", "edge-a-1", token + "x", http.StatusUnauthorized},
			{"somebody without rights", "edge-a-1", stranger, http.StatusForbidden},
			{"an unknown node", "edge-x", token, http.StatusNotFound},
		} {
			if code, body, err := w.terminated(t.Context(), front, tt.node, tt.token); code != tt.want || err != nil || !strings.HasPrefix(body, "corax: ") {
				t.Errorf("%s by %s: %d %q %v", tt.name, front, code, body, err)
			}
		}
	}
}

// terminated gets the metrics of a node from a front, whose TLS ends there.
func (w *world) terminated(ctx context.Context, front, node, token string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	const service = "x-raven-proxy-internal-svc.kube-system.svc"
	c := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: w.roots, ServerName: service},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return w.Control.Dial(ctx, network, netip.AddrPortFrom(w.Node(front).IP, 10281).String())
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+service+":10250/metrics?nodeName="+node, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// testDoctor has the doctor look at what works and at what does not, on the node of
// the control plane, as its API server sees it.
func (w *world) testDoctor(t *testing.T) {
	admin := w.Cluster.Kubeconfig(t, w.Cluster.Config())
	w.Cluster.ApplyYAML(t, scraper)
	token := func(account string) []string {
		file := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(file, []byte(w.Cluster.AccountConfig(t, account).BearerToken+"\n"), 0o600))
		return []string{"--node", "edge-a-1", "--http", w.Node("cloud-gw").IP.String() + ":10282", "--token-file", file}
	}
	for _, tt := range []struct {
		name string
		args []string
		// bad is the first step that fails; empty: none does.
		bad string
	}{
		{"an edge", []string{"--node", "edge-b-1"}, ""},
		{"a node alone", []string{"--node", "edge-c-gw"}, ""},
		{"a node of the cloud", []string{"--node", "cloud-1"}, ""},
		{"an unknown node", []string{"--node", "edge-x"}, "objects"},
		{"a port that is not listed", []string{"--node", "edge-a-1", "--port", "22"}, "objects"},
		{"a port where nobody listens", []string{"--node", "edge-a-1", "--port", "9445"}, "node"},
		{"a scraper", token("scraper"), ""},
		{"somebody without rights", token("stranger"), "token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"doctor", "-o", "json", "--kubeconfig", admin, "--hosts", w.hosts()}, tt.args...)
			out, err := w.Agent(w.ControlNode().Name).Command(t.Context(), args...)
			var report struct {
				Checks []struct{ Step, Verdict, Found, Cause, Fix string }
			}
			if jerr := json.Unmarshal(out, &report); jerr != nil {
				t.Fatalf("%v: %s", jerr, out)
			}
			bad, asked := "", false
			for _, c := range report.Checks {
				asked = asked || c.Step == "http" && c.Verdict == "ok"
				if c.Verdict == "fail" && bad == "" {
					bad = c.Step
				}
				if c.Verdict == "fail" && (c.Cause == "" || c.Fix == "") {
					t.Errorf("%+v", c)
				}
			}
			if !asked && tt.bad != "objects" {
				t.Errorf("the plain port was not tried:\n%s", out)
			}
			if bad != tt.bad || (err != nil) != (tt.bad != "") {
				t.Errorf("%q fails, want %q; %v\n%s", bad, tt.bad, err, out)
			}
		})
	}
}

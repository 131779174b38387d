package controller

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	h, err := newHealth("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	get := func(path string) (int, string) {
		t.Helper()
		answer, err := http.Get("http://" + h.listener.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	for _, step := range []struct {
		ready error
		code  int
		body  string
	}{
		{errNoAPI(), 503, "waiting for the API server"},
		{nil, 200, "ok"},
		{errors.New("keeping off: Gateway x"), 503, "keeping off: Gateway x"},
	} {
		h.Watch(func() error { return step.ready })
		if code, body := get("/readyz"); code != step.code || strings.TrimSpace(body) != step.body {
			t.Errorf("readyz with %v: %d %q", step.ready, code, body)
		}
		if code, _ := get("/healthz"); code != 200 {
			t.Errorf("healthz: %d", code)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := newHealth("256.0.0.1:1"); err == nil {
		t.Error("listens nowhere")
	}
	if h, err := newHealth(""); err != nil || h.Run(t.Context()) != nil {
		t.Error("without an address")
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // part of the error
	}{
		{"zero", Config{}, ""},
		{"disable", Config{Disable: Reconcilers()}, ""},
		{"unknown", Config{Disable: []string{"dns"}}, `there is no "dns"`},
		{"namespace", Config{Namespace: "Kube"}, "namespace:"},
		{"label", Config{DomainLabel: "a b"}, "domain label:"},
		{"replicas", Config{TunnelReplicas: 9}, "9 is not from 1 to 8"},
		{"negative replicas", Config{ProxyReplicas: -1}, "-1 is not from 1 to 8"},
		{"expose", Config{ExposeCloud: "NodePort"}, `"NodePort" is neither`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.cfg.Validate()
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
		})
	}
	cfg, err := Config{}.withDefaults()
	if err != nil || cfg.Namespace != "kube-system" || cfg.LeaseNamespace != "corax-leases" ||
		cfg.DomainLabel != "apps.openyurt.io/nodepool" || cfg.ProxyReplicas != 1 || cfg.TunnelReplicas != 1 || cfg.Log == nil {
		t.Errorf("%+v, %v", cfg, err)
	}
	if err := Run(t.Context(), Config{Kubeconfig: "missing"}); err == nil || !strings.HasPrefix(err.Error(), "controller: ") {
		t.Errorf("%v", err)
	}
}

// TestAddressTaken: a port that is somebody else's ends Run at once, with its name,
// and before anything is asked of the cluster.
func TestAddressTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	const text = "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, cfg := range map[string]Config{
		"metrics": {MetricsAddr: l.Addr().String(), HealthAddr: "127.0.0.1:0"},
		"health":  {HealthAddr: l.Addr().String()},
	} {
		cfg.Kubeconfig = file
		if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), what+": listen tcp "+l.Addr().String()) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestMeter(t *testing.T) {
	m, err := newMeter("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	answer, err := http.Get("http://" + m.listener.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(body), "go_goroutines") {
		t.Errorf("%d, %v: %.200s", answer.StatusCode, err, body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

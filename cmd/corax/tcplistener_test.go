package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// freeAddr returns a loopback address that nobody used a moment ago.
func freeAddr(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return netip.MustParseAddrPort(ln.Addr().String())
}

// fetch gets a page of a listener that may not listen yet.
func fetch(t *testing.T, addr netip.AddrPort, path string) (int, string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		resp, err := http.Get("http://" + addr.String() + path)
		if err != nil {
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
}

func startWeb(t *testing.T, f *fakeAgent) agentConfig {
	t.Helper()
	socket, stop := startLocal(t, f)
	stop()
	cfg := agentConfig{Socket: socket, HealthAddr: freeAddr(t), MetricsAddr: freeAddr(t)}
	startLocalAt(t, f, cfg)
	return cfg
}

func TestHealth(t *testing.T) {
	f := &fakeAgent{}
	cfg := startWeb(t, f)
	if code, body := fetch(t, cfg.HealthAddr, "/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	if code, body := fetch(t, cfg.HealthAddr, "/readyz"); code != 200 || body != "ready\n" {
		t.Errorf("readyz: %d %q", code, body)
	}
	f = &fakeAgent{notOK: []string{"no Gateway objects yet", "the TUN is down"}}
	cfg = startWeb(t, f)
	if code, body := fetch(t, cfg.HealthAddr, "/readyz"); code != 503 || body != "not ready\nno Gateway objects yet\nthe TUN is down\n" {
		t.Errorf("readyz: %d %q", code, body)
	}
	// Neither status nor ping is for the network.
	if code, _ := fetch(t, cfg.HealthAddr, "/v1/status"); code != 404 {
		t.Errorf("status over TCP: %d", code)
	}
}

func TestMetrics(t *testing.T) {
	s := sampleStatus()
	s.Peers = append(s.Peers, s.Peers[0]) // a twin must not cost the scrape
	s.Peers[1].Node = "bad\xffname"
	cfg := startWeb(t, &fakeAgent{status: s})
	code, body := fetch(t, cfg.MetricsAddr, "/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	if _, err := parser.TextToMetricFamilies(strings.NewReader(body)); err != nil {
		t.Fatalf("not the text format: %v\n%s", err, body)
	}
	for _, want := range []string{
		`corax_vxlan_drop_total{reason="unknown_vtep"} 7`,
		`corax_vxlan_drop_total{reason="short"} 1`,
		"# TYPE corax_vxlan_drop_total counter",
		"# TYPE corax_fabric_table_prefixes gauge",
		"corax_fabric_table_prefixes 12",
		`corax_build_info{version="v0.1.0"} 1`,
		`corax_role_info{datapath="tun",role="gateway"} 1`,
		"corax_problems 2",
		`corax_peer_up{gateway="edge-a",node="edge-a-1"} 1`,
		`corax_peer_up{gateway="edge-d",node="edge-d-with-a-longer-name"} 0`,
		`corax_peer_path_info{gateway="edge-b",kind="relay",node="bad?name"} 1`,
		`corax_peer_rtt_seconds{gateway="edge-a",node="edge-a-1"} 0.012345`,
		`corax_peer_receive_bytes_total{gateway="edge-a",node="edge-a-1"} 1.23456789e+08`,
		`corax_peer_last_handshake_timestamp_seconds{gateway="edge-a",node="edge-a-1"} 1.772625525e+09`,
		"go_goroutines ",
	} {
		if !strings.Contains(body, want+"\n") && !(strings.HasSuffix(want, " ") && strings.Contains(body, want)) {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(body, `corax_peer_rtt_seconds{gateway="edge-c"`) {
		t.Error("a round trip that was not measured is 0")
	}
	if t.Failed() {
		t.Log(body)
	}
}

// A port that is taken is one log line and a problem, until it is free.
func TestTakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(taken.Addr().String())
	lines := make(pages, 16)
	l := &tcpListener{
		name: "health", addr: addr, handler: http.NotFoundHandler(), retry: time.Millisecond,
		log: slog.New(slog.NewTextHandler(lines, nil)),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()

	if line := lines.next(t); !strings.Contains(line, "level=WARN") || !strings.Contains(line, addr.String()) {
		t.Errorf("log: %s", line)
	}
	if p := l.Problem(); !strings.Contains(p, "health is not served: ") || !strings.Contains(p, "address already in use") {
		t.Errorf("problem %q", p)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	// The next line is that it listens: the tries between were silent.
	if line := lines.next(t); !strings.Contains(line, "listening now") {
		t.Errorf("log: %s", line)
	}
	if code, _ := fetch(t, addr, "/"); code != 404 {
		t.Errorf("answer %d", code)
	}
	if p := l.Problem(); p != "" {
		t.Errorf("the problem stays: %q", p)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An address that the node does not have is a problem in status, and the agent
// answers all the same.
func TestListenerProblemInStatus(t *testing.T) {
	f := &fakeAgent{status: Status{Node: "n1", Problems: []string{"own"}}}
	socket, stop := startLocal(t, f)
	stop()
	startLocalAt(t, f, agentConfig{Socket: socket, HealthAddr: netip.MustParseAddrPort("192.0.2.1:1")})
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		code, stdout, _ := corax(t, "status", "--socket", socket)
		if code == exitOK && strings.Contains(stdout, "- own") && strings.Contains(stdout, "- health is not served: ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("exit code %d\n%s", code, stdout)
		}
	}
	if len(f.status.Problems) != 1 {
		t.Error("the agent's own list was changed")
	}
}

func TestLocalLeavesNothingBehind(t *testing.T) {
	f := &fakeAgent{status: Status{Node: "n1"}}
	socket, stop := startLocal(t, f)
	stop()
	before := runtime.NumGoroutine()
	for range 20 {
		cfg := agentConfig{Socket: socket, HealthAddr: freeAddr(t)}
		stop := startLocalAt(t, f, cfg)
		corax(t, "status", "--socket", socket)
		fetch(t, cfg.HealthAddr, "/healthz")
		stop()
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			var stacks bytes.Buffer
			buf := make([]byte, 1<<16)
			stacks.Write(buf[:runtime.Stack(buf, true)])
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, stacks.String())
		}
	}
}

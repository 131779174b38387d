//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

// fetch gets a page of the health or metrics listener of an agent's node.
func fetch(t *testing.T, n *lab.Node, port int, path string) (code int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tr := &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d%s", n.IP, port, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestHealth asks for health, readiness and metrics.
func TestHealth(t *testing.T) {
	f := newFaults(t, lab.Options{})
	for _, n := range f.Nodes() {
		for _, tt := range []struct {
			path, body string
			code       int
		}{
			{"/healthz", "ok\n", 200}, {"/readyz", "ready\n", 200}, {"/metrics", "404 page not found\n", 404},
		} {
			if code, body := fetch(t, n, 10284, tt.path); code != tt.code || body != tt.body {
				t.Errorf("%s of %s: %d %q, want %d %q", tt.path, n.Name, code, body, tt.code, tt.body)
			}
		}
		code, body := fetch(t, n, 10283, "/metrics")
		if code != 200 || !strings.Contains(body, "\ncorax_problems 0\n") || !strings.Contains(body, "\ngo_goroutines ") || !strings.Contains(body, "\nprocess_resident_memory_bytes ") {
			t.Errorf("/metrics of %s: %d %q", n.Name, code, body)
		}
	}
	f.await(t, f.hub(), 10*time.Second, pathKind("edge-a-gw", "direct"))
	_, body := fetch(t, f.cloud().Gateway(), 10283, "/metrics")
	for _, line := range []string{
		`corax_role_info{datapath="tun",role="gateway"} 1`,
		`corax_peer_up{gateway="edge-a",node="edge-a-gw"} 1`,
		`corax_peer_path_info{gateway="edge-a",kind="direct",node="edge-a-gw"} 1`,
		`corax_mtu_bytes 1408`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

// sample is the name of a metric as docs/operations.md writes it, and its reason.
type sample struct{ name, reason string }

func (s sample) String() string { return s.name + "{" + s.reason + "}" }

// TestOperationsDocument: the document names every metric and every reason to
// drop that a gateway node has, and none that is not there.
func TestOperationsDocument(t *testing.T) {
	f := newFaults(t, lab.Options{})
	f.await(t, f.hub(), 10*time.Second, func(s *lab.Status) error {
		if p := s.Peer("edge-a-gw"); p == nil || p.RTTMillis == 0 { // else it has no metric yet
			return fmt.Errorf("peer %+v", p)
		}
		return nil
	})
	_, body := fetch(t, f.cloud().Gateway(), 10283, "/metrics")
	document, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := documentedMetrics(string(document))
	served := make(map[sample]bool)
	for line := range strings.Lines(body) {
		name, ok := strings.CutPrefix(line, "corax_")
		if !ok {
			continue
		}
		name, labels, _ := strings.Cut(strings.Fields(name)[0], "{")
		for _, socket := range []string{"wg_udp4", "wg_udp6", "vxlan_socket"} {
			name = strings.Replace(name, socket, "SOCKET", 1)
		}
		s := sample{name: name}
		if _, reason, ok := strings.Cut(labels, `reason="`); ok && (strings.Contains(name, "drop") || strings.Contains(name, "suppressed")) {
			s.reason, _, _ = strings.Cut(reason, `"`)
		}
		served[s] = true
		if !documented[s] {
			t.Errorf("%v is not in the document", s)
		}
	}
	for s := range documented {
		if !served[s] {
			t.Errorf("the document names %v, which is not served", s)
		}
	}
	if len(served) < 100 {
		t.Errorf("%d metrics are served", len(served))
	}
}

// documentedMetrics reads the two tables of metrics: of drops with a reason, and
// of all others.
func documentedMetrics(document string) map[sample]bool {
	all := make(map[sample]bool)
	drops, others := false, false
	for line := range strings.Lines(document) {
		if strings.HasPrefix(line, "## ") {
			drops, others = line == "## Drops\n", line == "## Other metrics\n"
		}
		cells := strings.Split(line, "|")
		if !drops && !others || len(cells) < 4 || !strings.Contains(cells[1], "`") {
			continue
		}
		for _, name := range strings.Split(cells[1], ",") {
			s := sample{name: strings.Trim(name, " `")}
			if drops && strings.Contains(cells[2], "`") {
				s.reason = strings.Trim(cells[2], " `")
			}
			all[s] = true
		}
	}
	return all
}

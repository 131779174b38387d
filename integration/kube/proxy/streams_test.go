//go:build linux

package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"corax/integration/kube/cluster"
)

// testStreams looks at running streams with `corax proxy`, and at what is written of
// them in the end.
func (w *world) testStreams(t *testing.T) {
	nodes := []string{"edge-a-1", "edge-b-1"}
	var logs []*counting
	for _, node := range nodes {
		logs = append(logs, w.count(t, node))
	}
	for _, node := range nodes {
		if n := w.listed(t, "front", node, fronts()...); n != 1 {
			t.Errorf("the fronts list %d streams to %s", n, node)
		}
	}
	// The agent of nobody carries what goes to its domain.
	if n := w.listed(t, "edge", "edge-b-1", rootless); n != 1 {
		t.Errorf("%s lists %d streams to edge-b-1", rootless, n)
	}
	if s, err := w.Agent(rootless).Status(t.Context()); err != nil || s.Datapath != "netstack" {
		t.Errorf("%s: %+v, %v", rootless, s, err)
	}
	for _, c := range logs {
		must(t, c.Kill())
	}
	for _, node := range nodes {
		cluster.Eventually(t, 15*time.Second, "the audit of the stream to "+node, func(context.Context) error {
			for _, front := range fronts() {
				b, err := os.ReadFile(w.Agent(front).LogFile())
				if err != nil {
					return err
				}
				for line := range strings.Lines(string(b)) {
					if strings.Contains(line, "component=audit front=tls node="+node+" port=10250") && strings.Contains(line, "downBytes=") {
						return nil
					}
				}
			}
			return fmt.Errorf("no front has written of it")
		})
	}
}

// stream is one that an agent lists.
type stream struct {
	Side, Node, Via string
	Caller          netip.AddrPort
	DownBytes       int
	Port            uint16
}

func (w *world) streams(t *testing.T, agent string) []stream {
	t.Helper()
	out, err := w.Agent(agent).Command(t.Context(), "proxy", "-o", "json")
	must(t, err)
	var got struct{ Streams []stream }
	must(t, json.Unmarshal(out, &got))
	return got.Streams
}

// listed counts the streams to a node's kubelet that some agents have on one side,
// but for those of probes, which are over at once.
func (w *world) listed(t *testing.T, side, node string, agents ...string) int {
	t.Helper()
	n := 0
	for _, name := range agents {
		for _, s := range w.streams(t, name) {
			if s.Side == side && s.Node == node && s.Port == 10250 && s.DownBytes > 0 {
				n++
			}
		}
	}
	return n
}

// delivered are the bytes that came from a node's kubelet over the open streams of
// the edge.
func (w *world) delivered(t *testing.T, edge, node string) int {
	t.Helper()
	n := 0
	for _, s := range w.streams(t, edge) {
		if s.Side == "edge" && s.Node == node && s.Port == 10250 {
			n += s.DownBytes
		}
	}
	return n
}

// testProtocols demands that both protocols of exec, attach and port-forward were
// used until now: what the API server does goes by what a kubelet says of itself.
func (w *world) testProtocols(t *testing.T) {
	metrics, err := w.raw(t.Context(), "/metrics")
	must(t, err)
	for _, subresource := range []string{"exec", "attach", "portforward"} {
		for _, kind := range []string{"proxied_to_kubelet", "translated_at_apiserver"} {
			want := fmt.Sprintf(`apiserver_websocket_streaming_requests_total{proxy_type=%q,subresource=%q}`, kind, subresource)
			if !strings.Contains(metrics, want) {
				t.Errorf("no %s", want)
			}
		}
	}
}

//go:build !nokube

package main

import (
	"bytes"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"corax/control/kube"
	"corax/dataplane"
	"corax/dataplane/fabric"
	"corax/dataplane/key"
	"corax/dataplane/vxlan"
	"corax/dataplane/wg"
	"corax/nat"
	"corax/proxy"
)

// partCounters are the counters of the parts that an agent is made of.
func partCounters(t *testing.T) []dataplane.Counter {
	t.Helper()
	private, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	all := fabric.New(fabric.Config{}).Counters()
	dev, err := wg.New(wg.Config{PrivateKey: private, MTU: 1408, Receive: dataplane.SenderFunc(func([]dataplane.Packet) {})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	all = append(all, dev.Counters()...)
	segment, err := vxlan.New(vxlan.Config{
		Addr: netip.MustParseAddr("127.0.0.1"), VNI: 200, Overlay: private.Public().Overlay(),
		Receive: dataplane.SenderFunc(func([]dataplane.Packet) {}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = segment.Close() })
	all = append(all, segment.Counters()...)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	paths, err := nat.New(nat.Config{
		Private: private, Conn: conn, Port: 4500,
		Prefixes: func() []netip.Prefix { return nil }, Gateways: func() []netip.Addr { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range paths.Counters() {
		all = append(all, dataplane.Counter(c))
	}
	a := &agent{hello: &helloPort{}}
	a.view.Store(&view{})
	all = append(append(all, a.hello.counters()...), a.failoverCounters()...)
	cluster, err := kube.New(kube.Config{Kubeconfig: kubeconfig(t), Node: "n1", Update: a.inbox.put})
	if err != nil {
		t.Fatal(err)
	}
	return append(all, cluster.Counters()...)
}

// TestMetricsLint: names and help texts are as Prometheus wants them, and labels
// are few.
func TestMetricsLint(t *testing.T) {
	counters := partCounters(t)
	text := agentMetrics{
		status: sampleStatus, counters: func() []dataplane.Counter { return counters },
		proxied: func() proxy.Counts { return sampleCounts() },
	}.collect().text()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	byName, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("not the text format: %v\n%s", err, text)
	}
	families := slices.Collect(maps.Values(byName))
	if len(families) < 60 {
		t.Errorf("only %d metrics", len(families))
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	allowed := map[string]bool{
		"gateway": true, "node": true, "kind": true, "reason": true, "role": true, "datapath": true, "version": true,
		"front": true, "direction": true, "stage": true,
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "corax_") {
			t.Errorf("%s is not ours", f.GetName())
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !allowed[l.GetName()] {
					t.Errorf("%s has the label %s, which nothing bounds", f.GetName(), l.GetName())
				}
			}
		}
		if n := len(f.GetMetric()); n > 100 {
			t.Errorf("%s has %d series", f.GetName(), n)
		}
	}
}

// sampleCounts has something of everything that proxy mode counts.
func sampleCounts() proxy.Counts {
	c := new(proxy.Counters)
	c.Request("tls")
	c.Request("edge")
	c.Up.Add(5)
	c.Took(proxy.StagePath, time.Second)
	return c.Snapshot()
}

// TestProxyMetrics: what has no place in a plain counter is there all the same.
func TestProxyMetrics(t *testing.T) {
	text := agentMetrics{status: sampleStatus, counters: func() []dataplane.Counter { return nil }, proxied: sampleCounts}.collect().text()
	for _, want := range []string{
		`corax_proxy_requests_total{front="tls"} 1`, `corax_proxy_requests_total{front="edge"} 1`, `corax_proxy_bytes_total{direction="up"} 5`,
		`corax_proxy_bytes_total{direction="down"} 0`, `corax_proxy_stage_seconds_sum{stage="path"} 1`, `corax_proxy_stage_seconds_count{stage="path"} 1`,
	} {
		if !strings.Contains(string(text), want+"\n") {
			t.Errorf("lacks %q", want)
		}
	}
}

// kubeconfig writes one that leads nowhere.
func kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
current-context: c
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

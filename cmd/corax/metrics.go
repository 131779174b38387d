package main

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"corax/dataplane"
	"corax/proxy"
)

// metrics returns the handler of the metrics listener. It writes the text format
// itself: promhttp would bring compression that no scrape of this size needs.
func (l *local) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		agentCollector{status: l.status, counters: l.agent.Counters, proxied: l.agent.Proxied},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		serveMetrics(w, registry)
	})
	return mux
}

func serveMetrics(w http.ResponseWriter, g prometheus.Gatherer) {
	// With an error families still holds what could be gathered.
	families, err := g.Gather()
	if err != nil && len(families) == 0 {
		writeText(w, http.StatusInternalServerError, err.Error())
		return
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	var buf bytes.Buffer
	enc := expfmt.NewEncoder(&buf, format)
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			writeText(w, http.StatusInternalServerError, err.Error())
			return
		}
	}
	w.Header().Set("Content-Type", string(format))
	_, _ = w.Write(buf.Bytes())
}

// agentCollector turns status and counters into metrics. It describes none of
// them in advance: counters belong to the packages that count.
type agentCollector struct {
	status   func() Status
	counters func() []dataplane.Counter
	proxied  func() proxy.Counts // nil: none
}

var _ prometheus.Collector = agentCollector{}

// Describe sends nothing, which makes the collector an unchecked one.
func (agentCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the present values.
func (c agentCollector) Collect(out chan<- prometheus.Metric) {
	c.collectCounters(out)
	if c.proxied != nil {
		collectProxy(out, c.proxied())
	}
	s := c.status()
	out <- gauge("build_info", "Constant 1, with the version as label.", 1, []string{"version"}, s.Version)
	out <- gauge("role_info", "Constant 1, with role and datapath of the node as labels.", 1,
		[]string{"role", "datapath"}, string(s.Role), s.Datapath)
	out <- gauge("problems", "Problems that status shows.", float64(len(s.Problems)), nil)
	out <- gauge("mtu_bytes", "MTU of the TUN.", float64(s.MTU), nil)
	c.collectKinds(out, s.Peers)
	seen := map[[2]string]bool{}
	for _, p := range s.Peers {
		id := [2]string{p.Gateway, p.Node}
		if !seen[id] { // two alike would fail the whole scrape
			collectPeer(out, p)
		}
		seen[id] = true
	}
}

// collectKinds counts the peers by the kind of their path: what dashboards of a
// large mesh need, with a bounded number of series.
func (c agentCollector) collectKinds(out chan<- prometheus.Metric, peers []Peer) {
	count := map[PathKind]float64{}
	for _, p := range peers {
		count[p.Path.Kind]++
	}
	for _, k := range []PathKind{PathDirect, PathRelay, PathRelayTLS, PathVXLAN, PathIdle, PathNone} {
		out <- gauge("peers", "Peers whose path is of the kind.", count[k], []string{"kind"}, string(k))
	}
}

// counterHelp is what is said of single counters.
func counterHelp(name string) string {
	switch name {
	case "failover_claims_total":
		return "Times that this node took over from dead gateway nodes while nobody elected."
	case "failover_changes_total":
		return "Times that a claim changed who carries this node's domain."
	case "failover_claim_in_force":
		return "Whether a claim, and not the Gateway object, says who carries this node's domain."
	case "nat_path_changes_total":
		return "Changes of paths to peers, by their cause."
	case "proxy_streams":
		return "Streams of proxy mode that are open."
	case "proxy_memory_bytes":
		return "Bytes that the open streams of proxy mode may hold."
	case "proxy_stalls_total":
		return "Streams with an end that took nothing for ten seconds."
	case "proxy_refused_total":
		return "Requests of proxy mode that were not served, by reason."
	case "kube_connected":
		return "Whether the API server answered last."
	}
	switch {
	case strings.Contains(name, "drop"):
		return "What was dropped, by reason."
	case strings.HasSuffix(name, "_total"):
		return "Events since the agent started."
	default:
		return "Present value."
	}
}

// collectCounters adds up counters of one name and reason: several parts of one
// kind may count.
func (c agentCollector) collectCounters(out chan<- prometheus.Metric) {
	type id struct{ name, reason string }
	sums := map[id]float64{}
	for _, n := range c.counters() {
		sums[id{n.Name, n.Reason}] += float64(n.Value)
	}
	for id, sum := range sums {
		kind := prometheus.GaugeValue
		if strings.HasSuffix(id.name, "_total") {
			kind = prometheus.CounterValue
		}
		var labels, values []string
		if id.reason != "" {
			labels, values = []string{"reason"}, []string{id.reason}
		}
		out <- metric(id.name, counterHelp(id.name), kind, sum, labels, values)
	}
}

// collectProxy sends what proxy mode counts by front, direction and stage.
func collectProxy(out chan<- prometheus.Metric, c proxy.Counts) {
	count := func(name, help, label, value string, n float64) {
		out <- metric(name, help, prometheus.CounterValue, n, []string{label}, []string{value})
	}
	for f, n := range c.Requests {
		count("proxy_requests_total", "Requests of proxy mode, by the front that took them; edge: streams for this domain.", "front", f, float64(n))
	}
	const bytes = "Bytes of proxy mode: up to nodes, down from them."
	count("proxy_bytes_total", bytes, "direction", "up", float64(c.Up))
	count("proxy_bytes_total", bytes, "direction", "down", float64(c.Down))
	for s, l := range c.Stages {
		desc := prometheus.NewDesc("corax_proxy_stage_seconds", "Time that requests of proxy mode took, by stage.", []string{"stage"}, nil)
		m, err := prometheus.NewConstSummary(desc, l.Count, l.Sum.Seconds(), nil, string(s))
		if err != nil {
			m = prometheus.NewInvalidMetric(desc, err)
		}
		out <- m
	}
}

func collectPeer(out chan<- prometheus.Metric, p Peer) {
	labels := []string{"gateway", "node"}
	up := 0.0
	if p.Path.Kind.Reachable() {
		up = 1
	}
	out <- gauge("peer_up", "Whether the peer is reachable.", up, labels, p.Gateway, p.Node)
	out <- gauge("peer_path_info", "Constant 1, with the kind of path as label.", 1,
		[]string{"gateway", "node", "kind"}, p.Gateway, p.Node, string(p.Path.Kind))
	out <- gauge("peer_loss_ratio", "Share of probes that were lost.", p.LossRatio, labels, p.Gateway, p.Node)
	out <- gauge("peer_mtu_bytes", "Largest inner packet on the path.", float64(p.MTU), labels, p.Gateway, p.Node)
	if p.RTTMillis > 0 {
		out <- gauge("peer_rtt_seconds", "Smoothed round trip.", p.RTTMillis/1000, labels, p.Gateway, p.Node)
	}
	if !p.LastHandshake.IsZero() {
		out <- gauge("peer_last_handshake_timestamp_seconds", "Time of the last WireGuard handshake.",
			float64(p.LastHandshake.UnixMilli())/1000, labels, p.Gateway, p.Node)
	}
	values := []string{p.Gateway, p.Node}
	out <- metric("peer_receive_bytes_total", "Bytes received from the peer.", prometheus.CounterValue, float64(p.RxBytes), labels, values)
	out <- metric("peer_transmit_bytes_total", "Bytes sent to the peer.", prometheus.CounterValue, float64(p.TxBytes), labels, values)
}

func gauge(name, help string, v float64, labels []string, values ...string) prometheus.Metric {
	return metric(name, help, prometheus.GaugeValue, v, labels, values)
}

// metric makes one metric; a name or label that Prometheus refuses becomes an
// error of this metric alone.
func metric(name, help string, kind prometheus.ValueType, v float64, labels, values []string) prometheus.Metric {
	for i, s := range values {
		values[i] = strings.ToValidUTF8(s, "?")
	}
	desc := prometheus.NewDesc("corax_"+name, help, labels, nil)
	m, err := prometheus.NewConstMetric(desc, kind, v, values...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}

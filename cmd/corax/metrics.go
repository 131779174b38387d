package main

import (
	"bytes"
	"net/http"
	"strings"

	"corax/dataplane"
	"corax/proxy"
)

// metrics returns the handler of the metrics listener. It writes the text format
// itself: the libraries that could would be a tenth of a program without Kubernetes.
func (l *local) metrics() http.Handler {
	of := agentMetrics{status: l.status, counters: l.agent.Counters, proxied: l.agent.Proxied}
	own := newRuntimeMetrics()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var buf bytes.Buffer
		buf.Write(of.collect().text())
		if err := own(&buf); err != nil {
			writeText(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", expositionType)
		_, _ = w.Write(buf.Bytes())
	})
	return mux
}

// agentMetrics turns status and counters into metrics.
type agentMetrics struct {
	status   func() Status
	counters func() []dataplane.Counter
	proxied  func() proxy.Counts // nil: none
}

// collect returns the present values.
func (c agentMetrics) collect() exposition {
	out := exposition{}
	c.collectCounters(out)
	if c.proxied != nil {
		collectProxy(out, c.proxied())
	}
	s := c.status()
	out.gauge("build_info", "Constant 1, with the version as label.", 1, "version", s.Version)
	out.gauge("role_info", "Constant 1, with role and datapath of the node as labels.", 1,
		"datapath", s.Datapath, "role", string(s.Role))
	out.gauge("problems", "Problems that status shows.", float64(len(s.Problems)))
	out.gauge("mtu_bytes", "MTU of the TUN.", float64(s.MTU))
	collectKinds(out, s.Peers)
	for _, p := range s.Peers {
		collectPeer(out, p)
	}
	return out
}

// collectKinds counts the peers by the kind of their path: what dashboards of a
// large mesh need, with a bounded number of series.
func collectKinds(out exposition, peers []Peer) {
	count := map[PathKind]float64{}
	for _, p := range peers {
		count[p.Path.Kind]++
	}
	for _, k := range []PathKind{PathDirect, PathRelay, PathRelayTLS, PathVXLAN, PathIdle, PathNone} {
		out.gauge("peers", "Peers whose path is of the kind.", count[k], "kind", string(k))
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
	case "proxy_ended_total":
		return "Streams of proxy mode that were broken off here, by reason."
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
func (c agentMetrics) collectCounters(out exposition) {
	type id struct{ name, reason string }
	sums := map[id]float64{}
	for _, n := range c.counters() {
		sums[id{n.Name, n.Reason}] += float64(n.Value)
	}
	for id, sum := range sums {
		kind := kindGauge
		if strings.HasSuffix(id.name, "_total") {
			kind = kindCounter
		}
		if id.reason == "" {
			out.add(id.name, counterHelp(id.name), kind, sum)
		} else {
			out.add(id.name, counterHelp(id.name), kind, sum, "reason", id.reason)
		}
	}
}

// collectProxy adds what proxy mode counts by front, direction and stage.
func collectProxy(out exposition, c proxy.Counts) {
	for f, n := range c.Requests {
		out.add("proxy_requests_total", "Requests of proxy mode, by the front that took them; edge: streams for this domain.", kindCounter, float64(n), "front", f)
	}
	const bytes = "Bytes of proxy mode: up to nodes, down from them."
	out.add("proxy_bytes_total", bytes, kindCounter, float64(c.Up), "direction", "up")
	out.add("proxy_bytes_total", bytes, kindCounter, float64(c.Down), "direction", "down")
	for s, l := range c.Stages {
		out.summary("proxy_stage_seconds", "Time that requests of proxy mode took, by stage.", l.Count, l.Sum.Seconds(), "stage", string(s))
	}
}

func collectPeer(out exposition, p Peer) {
	up := 0.0
	if p.Path.Kind.Reachable() {
		up = 1
	}
	who := []string{"gateway", p.Gateway, "node", p.Node}
	out.gauge("peer_up", "Whether the peer is reachable.", up, who...)
	out.gauge("peer_path_info", "Constant 1, with the kind of path as label.", 1,
		"gateway", p.Gateway, "kind", string(p.Path.Kind), "node", p.Node)
	out.gauge("peer_loss_ratio", "Share of probes that were lost.", p.LossRatio, who...)
	out.gauge("peer_mtu_bytes", "Largest inner packet on the path.", float64(p.MTU), who...)
	if p.RTTMillis > 0 {
		out.gauge("peer_rtt_seconds", "Smoothed round trip.", p.RTTMillis/1000, who...)
	}
	if !p.LastHandshake.IsZero() {
		out.gauge("peer_last_handshake_timestamp_seconds", "Time of the last WireGuard handshake.",
			float64(p.LastHandshake.UnixMilli())/1000, who...)
	}
	out.add("peer_receive_bytes_total", "Bytes received from the peer.", kindCounter, float64(p.RxBytes), who...)
	out.add("peer_transmit_bytes_total", "Bytes sent to the peer.", kindCounter, float64(p.TxBytes), who...)
}

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"corax/control"
	"corax/control/api/v1beta1"
	"corax/dataplane"
	"corax/dataplane/key"
	"corax/nat/path"
)

func TestCarry(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	hub, other, neighbor := key.Public{1}, key.Public{2}, key.Public{3}
	edge := &dataplane.Config{
		Self: dataplane.Self{Tunnel: true},
		Peers: []dataplane.Peer{
			{PublicKey: hub, Hub: true, Keepalive: 20 * time.Second},
			{PublicKey: other}, // another edge: nobody keeps a session with it
			{PublicKey: neighbor, SameDomain: true, Keepalive: 20 * time.Second},
		},
	}
	called := &dataplane.Config{Self: dataplane.Self{Tunnel: true, Hub: true}, Peers: edge.Peers}
	heard := func(k key.Public, at time.Time) []dataplane.PeerStatus {
		return []dataplane.PeerStatus{{PublicKey: k, LastReceive: at}}
	}
	long := ago(time.Hour)
	for _, tt := range []struct {
		name     string
		facts    carryFacts
		ok, sure bool
		why      string
	}{
		{name: "the link is gone", facts: carryFacts{underlay: errors.New("no link"), config: edge, open: true}, sure: true, why: "the underlay is down: no link"},
		{name: "no tunnel mode", facts: carryFacts{config: &dataplane.Config{}}, ok: true, sure: true},
		{name: "no device", facts: carryFacts{config: edge}, sure: true, why: "the tunnel device is not open"},
		{name: "just opened", facts: carryFacts{config: edge, open: true, started: ago(time.Second)}},
		{name: "nobody answers", facts: carryFacts{config: edge, open: true, started: long}, sure: true, why: "none of 1 peers has answered"},
		{name: "the hub is heard", facts: carryFacts{config: edge, open: true, started: long, peers: heard(hub, ago(30*time.Second))}, ok: true, sure: true},
		{name: "heard at once", facts: carryFacts{config: edge, open: true, started: ago(time.Second), peers: heard(hub, now)}, ok: true, sure: true},
		{name: "the hub was heard", facts: carryFacts{config: edge, open: true, started: long, peers: heard(hub, ago(time.Minute))}, sure: true, why: "none of 1 peers was heard for 40s"},
		{name: "another edge proves nothing", facts: carryFacts{config: edge, open: true, started: long, peers: heard(other, now)}, sure: true, why: "none of 1 peers"},
		{name: "a neighbor proves nothing", facts: carryFacts{config: edge, open: true, started: long, peers: heard(neighbor, now)}, sure: true, why: "none of 1 peers"},
		{name: "no peers", facts: carryFacts{config: &dataplane.Config{Self: dataplane.Self{Tunnel: true}}, open: true, started: long}, ok: true, sure: true},
		{name: "a hub that nobody called yet", facts: carryFacts{config: called, open: true, started: long}, ok: true, sure: true},
		{name: "a hub that an edge calls", facts: carryFacts{config: called, open: true, started: long, peers: heard(other, ago(20*time.Second))}, ok: true, sure: true},
		{name: "a hub that fell silent", facts: carryFacts{config: called, open: true, started: long, peers: heard(other, ago(time.Minute))}, sure: true, why: "none of 2 peers was heard for 40s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.facts.now, tt.facts.listed = now, tt.facts.started
			ok, why, sure := tt.facts.judge()
			if ok != tt.ok || sure != tt.sure || !strings.HasPrefix(why, tt.why) || tt.why == "" && why != "" {
				t.Errorf("judged %v, %q, sure %v; want %v, %q, %v", ok, why, sure, tt.ok, tt.why, tt.sure)
			}
		})
	}
}

// TestCarryListed: peers can answer a tunnel only once they can know its key, which
// may be listed long after the tunnel was opened.
func TestCarryListed(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	self, old, hub := key.Public{9}, key.Public{8}, key.Public{1}
	config := &dataplane.Config{
		Self:  dataplane.Self{Tunnel: true},
		Peers: []dataplane.Peer{{PublicKey: hub, Hub: true, Keepalive: 20 * time.Second}},
	}
	unlisted, listed := control.Desired{Listed: old}, control.Desired{Listed: self}
	rotating := control.Desired{Listed: old, Next: self}
	type step struct {
		now   float64 // seconds after the tunnel was opened
		plan  control.Desired
		heard float64 // when the hub was, likewise; zero: never
		says  string  // "unsure", "yes", or the reason for no
	}
	const silent = "none of 1 peers has answered since the tunnel was opened"
	const missing = "the key of this node is not in its Gateway object, so no peer can answer"
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"listed at once", []step{{1, listed, 0, "unsure"}, {10.9, listed, 0, "unsure"}, {11, listed, 0, silent}, {12, listed, 12, "yes"}}},
		{"listed late", []step{{1, unlisted, 0, "unsure"}, {12, unlisted, 0, "unsure"}, {14, listed, 0, "unsure"}, {23.9, listed, 0, "unsure"}, {24, listed, 0, silent}}},
		{"listed late, and heard", []step{{12, unlisted, 0, "unsure"}, {14, listed, 0, "unsure"}, {15, listed, 15, "yes"}}},
		{"listed as the next key", []step{{12, rotating, 0, "unsure"}, {21, listed, 0, "unsure"}, {22, listed, 0, silent}}},
		{"never listed", []step{{44, unlisted, 0, "unsure"}, {45, unlisted, 0, missing}, {46, listed, 0, "unsure"}}},
		{"taken out again", []step{{5, listed, 0, "unsure"}, {50, unlisted, 0, missing}, {51, listed, 0, "unsure"}, {61, listed, 0, silent}}},
		{"heard before it is listed", []step{{12, unlisted, 11, "yes"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var since time.Time
			for _, s := range tt.steps {
				since = listedSince(since, at(s.now), s.plan, self)
				f := carryFacts{now: at(s.now), started: start, listed: since, open: true, config: config}
				if s.heard > 0 {
					f.peers = []dataplane.PeerStatus{{PublicKey: hub, LastReceive: at(s.heard)}}
				}
				ok, why, sure := f.judge()
				says := why
				switch {
				case !sure:
					says = "unsure"
				case ok:
					says = "yes"
				}
				if says != s.says {
					t.Errorf("after %v s: %q, want %q", s.now, says, s.says)
				}
			}
		})
	}
}

func TestRavenNAT(t *testing.T) {
	for _, tt := range []struct {
		nat  path.NAT
		want string
	}{
		{path.NAT{}, ""},
		{path.NAT{Blocked: true}, v1beta1.NATUndefined},
		{path.NAT{Mapping: path.MappingEndpointIndependent, Filtering: path.FilteringEndpointIndependent}, v1beta1.NATFullCone},
		{path.NAT{Mapping: path.MappingEndpointIndependent, Filtering: path.FilteringAddressDependent}, v1beta1.NATRestrictedCone},
		{path.NAT{Mapping: path.MappingEndpointIndependent, Filtering: path.FilteringAddressAndPortDependent}, v1beta1.NATPortRestrictedCone},
		{path.NAT{Mapping: path.MappingEndpointIndependent}, v1beta1.NATPortRestrictedCone},
		{path.NAT{Mapping: path.MappingAddressDependent}, v1beta1.NATSymmetric},
		{path.NAT{Mapping: path.MappingAddressAndPortDependent, Filtering: path.FilteringEndpointIndependent}, v1beta1.NATSymmetric},
	} {
		if got := ravenNAT(tt.nat); got != tt.want {
			t.Errorf("%+v is %q, want %q", tt.nat, got, tt.want)
		}
	}
}

func TestSourceOfGateways(t *testing.T) {
	node := []string{"--node-name=n1", "--node-ip=10.0.0.4"}
	pod := map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
	for _, tt := range []struct {
		name      string
		args      []string
		env       map[string]string
		inCluster bool
		want      string // error
	}{
		{name: "a directory", args: []string{"--gateways=d"}},
		{name: "a directory, in a pod", args: []string{"--gateways=d"}, env: pod},
		{name: "a kubeconfig, in a pod", args: []string{"--kubeconfig=k"}, env: pod},
		{name: "a pod", env: pod, inCluster: true},
		{name: "nothing", want: "neither --kubeconfig nor --gateways is set"},
		{name: "both", args: []string{"--kubeconfig=k", "--gateways=d"}, want: "exclude each other"},
		{name: "another preset", args: []string{"--gateways=d", "--preset=other"}, want: "none of standalone, openyurt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _, err := load(append(node[:2:2], tt.args...), nil, tt.env)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil || cfg.InCluster != tt.inCluster {
				t.Errorf("in cluster %v, %v; want %v", cfg.InCluster, err, tt.inCluster)
			}
		})
	}
}

// wellCluster is a cluster with which nothing is wrong.
type wellCluster struct{ cluster }

func (wellCluster) Problems() []string { return nil }

func TestUnboundEntries(t *testing.T) {
	for unbound, want := range map[bool]int{true: 1, false: 0} {
		a := &agent{cluster: wellCluster{}, cfg: agentConfig{Unbound: unbound}}
		if got := a.clusterProblems(); len(got) != want {
			t.Errorf("unbound %v: %q", unbound, got)
		}
	}
}

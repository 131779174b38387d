package main

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"
)

// samplePaths is a peer with a way of each kind, seen by an agent that moved from
// one to the other.
func samplePaths() Paths {
	now := sampleTime()
	return Paths{
		Gateway: "edge-b", Node: "edge-b-1", OverlayAddress: sampleKey(3).Overlay(),
		Path:  Path{Kind: PathRelay, Endpoint: "203.0.113.1:4500", Via: []string{"cloud-1", "cloud-2"}, Why: "no socket could be opened"},
		Since: now.Add(-75 * time.Second), Active: true, RTTMillis: 140, LossRatio: 0.25, MTU: 1264, MTU6: 1280,
		NextTry: now.Add(29*time.Second + 700*time.Millisecond), Detail: "too many open files\nin this process",
		NAT: NAT{Local: "endpoint-independent", Remote: "address and port-dependent"},
		Candidates: []PathCandidate{
			{Kind: PathDirect, Address: "192.168.7.9:4500", Candidate: "host", Probes: 12, Why: "no probe was answered; tried again later"},
			{Kind: PathRelayTLS, Address: "203.0.113.2:10280", Via: []string{"cloud-2"}, Proven: true, RTTMillis: 180, CostMillis: 230, MTU: 1408, Probes: 3, Why: "a probe on it was answered"},
			{Kind: PathDirect, Address: "[2001:db8::7]:4500", Candidate: "server reflexive", CostMillis: 90, Probes: 1, Why: "nothing\x1b[2J comes back on it"},
			{Kind: PathRelay, Address: "203.0.113.2:4500", Via: []string{"cloud-2"}, Proven: true, RTTMillis: 150, LossRatio: 0.004, CostMillis: 160, Probes: 4, Why: "a probe on it was answered"},
			{Kind: PathRelay, Address: "203.0.113.1:4500", Via: []string{"cloud-1", "cloud-2"}, Proven: true, InUse: true, RTTMillis: 140, LossRatio: 0.25, CostMillis: 170, MTU: 1264, Probes: 88, Why: "this is the best way"},
		},
		Transitions: []PathTransition{
			{At: now.Add(-26 * time.Hour), From: "none", To: "relay via cloud-2", Cause: "there is traffic for the peer"},
			{At: now.Add(-80 * time.Second), From: "relay via cloud-2", To: "direct 198.51.100.7:4500", Cause: "it costs clearly less"},
			{At: now.Add(-75 * time.Second), From: "direct 198.51.100.7:4500", To: "relay via cloud-1, cloud-2", Cause: "nothing comes back on it", Detail: "3 probes\tlost"},
		},
	}.complete()
}

func TestGoldenPaths(t *testing.T) {
	idle := Paths{Gateway: "edge-c", Node: "edge-c-1", Path: Path{Kind: PathIdle, Why: "no traffic for a minute"}}.complete()
	unproven := Paths{
		Gateway: "cloud", Node: "cloud-1", Path: Path{Kind: PathDirect, Endpoint: "203.0.113.1:4500"}, Active: true, MTU: 1360, MTU6: 1360,
		NextTry: sampleTime().Add(-time.Second),
		Candidates: []PathCandidate{
			{Kind: PathDirect, Address: "203.0.113.1:4500", Candidate: "configured", InUse: true},
		},
	}.complete()
	for _, tt := range []struct {
		name string
		form output
		p    Paths
	}{
		{"relay-table", outputTable, samplePaths()},
		{"relay-json", outputJSON, samplePaths()},
		{"relay-yaml", outputYAML, samplePaths()},
		{"idle-table", outputTable, idle},
		{"idle-json", outputJSON, idle},
		{"unproven-table", outputTable, unproven},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got bytes.Buffer
			if err := writePaths(&got, tt.form, tt.p, sampleTime()); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "paths", tt.name+".golden"), got.Bytes())
		})
	}
}

// The table leaves the document as it was.
func TestPathsTableKeepsOrder(t *testing.T) {
	p := samplePaths()
	first := p.Candidates[0]
	pathsTable(p, sampleTime())
	if p.Candidates[0].Address != first.Address {
		t.Errorf("the first candidate became %v", p.Candidates[0])
	}
}

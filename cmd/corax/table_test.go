package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"corax/dataplane/key"
)

func sampleTime() time.Time { return time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC) }

func sampleKey(b byte) key.Public { return key.Public{0: b, 31: 1} }

// sampleStatus is a gateway node with one peer of each kind of path.
func sampleStatus() Status {
	now := sampleTime()
	prefix := netip.MustParsePrefix
	peer := func(b byte, gateway, node string, subnets ...netip.Prefix) Peer {
		return Peer{Gateway: gateway, Node: node, PublicKey: sampleKey(b), OverlayAddress: sampleKey(b).Overlay(), Subnets: subnets, MTU: 1360}
	}
	direct := peer(2, "edge-a", "edge-a-1", prefix("10.1.0.0/24"), prefix("fd00:1::/64"))
	direct.Path = Path{Kind: PathDirect, Endpoint: "198.51.100.7:4500"}
	direct.RTTMillis, direct.LossRatio = 12.345, 0.004
	direct.LastHandshake, direct.RxBytes, direct.TxBytes = now.Add(-75*time.Second), 123_456_789, 987
	direct.NAT = NAT{Local: "none", Remote: "endpoint-independent"}
	relay := peer(3, "edge-b", "edge-b-1", prefix("10.2.0.0/24"))
	relay.Path = Path{Kind: PathRelay, Endpoint: "203.0.113.1:4500", Via: []string{"cloud-1", "cloud-2"}, Why: "both ends are behind symmetric NATs"}
	relay.RTTMillis, relay.LossRatio, relay.LastHandshake = 140, 0.25, now.Add(-26*time.Hour)
	idle := peer(4, "edge-c", "edge-c-1")
	idle.Path.Kind = PathIdle
	lost := peer(5, "edge-d", "edge-d-with-a-longer-name")
	lost.Path = Path{Kind: PathNone, Why: "no address is known\nfor it\x1b[31m"}
	return Status{
		Node: "cloud-1", Gateway: "cloud", Role: RoleGateway, Datapath: "tun", PublicKey: sampleKey(1), OverlayAddress: sampleKey(1).Overlay(),
		MTU: 1408, Version: "v0.1.0", Peers: []Peer{direct, relay, idle, lost},
		Problems:     []string{"net.ipv4.ip_forward is 0\ntry: sysctl -w net.ipv4.ip_forward=1", "gateway edge-x: no public key"},
		AllowSources: []netip.Prefix{prefix("100.64.0.0/10"), prefix("198.51.100.0/24")},
		Counters:     map[string]uint64{"fabric_drop_total{ttl}": 3, "vxlan_drop_total{unknown_vtep}": 12345},
	}.complete()
}

func TestGoldenStatus(t *testing.T) {
	plain := Status{
		Node: "edge-a-2", Gateway: "edge-a", Role: RoleNode, Datapath: "netstack", DatapathReason: "no permission for /dev/net/tun", MTU: 1408, Version: "dev",
		PublicKey: sampleKey(9), OverlayAddress: sampleKey(9).Overlay(),
		Peers: []Peer{{Gateway: "edge-a", Node: "edge-a-1", Path: Path{Kind: PathVXLAN, Endpoint: "192.168.1.4:4472"}, RTTMillis: 0.412, MTU: 1450}},
	}.complete()
	alone := Status{Node: "n1", Role: RoleNone, Datapath: "tun", MTU: 1408, Version: "dev"}.complete()
	for _, tt := range []struct {
		name string
		form output
		s    Status
	}{
		{"gateway-table", outputTable, sampleStatus()},
		{"gateway-wide", outputWide, sampleStatus()},
		{"gateway-json", outputJSON, sampleStatus()},
		{"gateway-yaml", outputYAML, sampleStatus()},
		{"node-table", outputTable, plain},
		{"alone-table", outputTable, alone},
		{"alone-yaml", outputYAML, alone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got bytes.Buffer
			if err := writeStatus(&got, tt.form, tt.s, sampleTime()); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "status", tt.name+".golden"), got.Bytes())
		})
	}
}

// Texts that YAML would read as something else stay texts.
func TestYAMLKeepsStrings(t *testing.T) {
	for _, text := range []string{"true", "null", "~", "012", "1e3", "0x1", "2026-03-04", "", " a", "- a", "a: b", "#", "é\u2028", "\"'", "<&>", "*x", "a\nb\n"} {
		var out bytes.Buffer
		if err := writeYAML(&out, map[string][]string{"v": {text}}); err != nil {
			t.Fatal(err)
		}
		var back map[string][]any
		if err := yaml.Unmarshal(out.Bytes(), &back); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if d := cmp.Diff(map[string][]any{"v": {text}}, back); d != "" {
			t.Errorf("%q became (-want +got)\n%s%s", text, d, out.String())
		}
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got)\n%s", path, d)
	}
}

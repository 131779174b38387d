package control_test

import (
	"fmt"
	"testing"

	"corax/control"
	"corax/control/api/v1beta1"
	"corax/dataplane/key"
)

// BenchmarkPlan plans for a hub among a thousand edges of four nodes each: what
// one change of one object costs there.
func BenchmarkPlan(b *testing.B) {
	s := control.Snapshot{EnableTunnel: true, EnableProxy: true}
	for d := range 1000 {
		g := v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{Name: fmt.Sprintf("edge-%04d", d)}}
		for n := range 4 {
			g.Status.Nodes = append(g.Status.Nodes, v1beta1.NodeInfo{
				NodeName: fmt.Sprintf("edge-%04d-%d", d, n), PrivateIP: fmt.Sprintf("192.168.0.%d", n+1),
				Subnets: []string{fmt.Sprintf("10.%d.%d.0/24", d/64, d%64*4+n), fmt.Sprintf("fd00:%x:%x::/64", d, n)},
			})
		}
		g.Spec.Endpoints = []v1beta1.Endpoint{{
			NodeName: fmt.Sprintf("edge-%04d-0", d), Type: v1beta1.TypeTunnel, UnderNAT: d > 0,
			PublicIP: "203.0.113.1", Config: map[string]string{v1beta1.ConfigPublicKey: key.Public{1, byte(d), byte(d >> 8)}.String()},
		}}
		s.Gateways = append(s.Gateways, g)
	}
	l := control.Local{Node: "edge-0000-0", PublicKey: key.Public{1}}
	b.ReportAllocs()
	for b.Loop() {
		if d := control.Plan(s, l); len(d.Config.Host) != 999*8 {
			b.Fatal(len(d.Config.Host), d.Problems)
		}
	}
}

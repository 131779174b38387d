package domain_test

import (
	"fmt"
	"testing"

	"corax/control/controller/domain"
)

// cluster makes n nodes: in pools of ten, one in five alone.
func cluster(n int) domain.State {
	s := domain.State{Pools: map[string]domain.Pool{}}
	for i := range n {
		name := fmt.Sprintf("node-%d", i)
		if i%5 == 0 {
			s.Nodes = append(s.Nodes, node(name, edgeLabel, "true"))
			continue
		}
		pool := fmt.Sprintf("pool-%d", i/10)
		s.Pools[pool] = domain.Pool{Edge: true}
		s.Nodes = append(s.Nodes, node(name, poolLabel, pool))
	}
	return s
}

// BenchmarkDecide shows the time for each node: it stays the same as the cluster
// grows. First is a cluster without any Gateway, idle one where all is done.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{500, 5_000, 50_000} {
		first := cluster(n)
		idle := cluster(n)
		p := domain.Decide(config(), idle)
		at := map[string]string{}
		for _, l := range p.Nodes {
			at[l.Node] = l.Gateway
		}
		for i := range idle.Nodes {
			idle.Nodes[i] = in(idle.Nodes[i], at[idle.Nodes[i].Name])
		}
		for _, g := range p.Create {
			idle.Gateways = append(idle.Gateways, domain.Gateway{Gateway: g})
		}
		for name, s := range map[string]domain.State{"first": first, "idle": idle} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					domain.Decide(config(), s)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/node")
			})
		}
	}
}

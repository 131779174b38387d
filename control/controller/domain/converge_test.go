package domain_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
)

// world is a cluster of which a plan is written step by step.
type world struct {
	rand     *rand.Rand
	nodes    map[string]domain.Node
	pools    map[string]domain.Pool
	gateways map[string]domain.Gateway
}

func (w *world) state() domain.State {
	s := domain.State{Pools: w.pools}
	for _, n := range w.nodes {
		s.Nodes = append(s.Nodes, n)
	}
	for _, g := range w.gateways {
		s.Gateways = append(s.Gateways, g)
	}
	return s
}

// write does the first steps of a plan, in its order, and reports how many there
// are.
func (w *world) write(p domain.Plan, steps int) int {
	all := 0
	do := func(f func()) {
		if all < steps {
			f()
		}
		all++
	}
	for _, g := range p.Create {
		do(func() { w.gateways[g.Metadata.Name] = domain.Gateway{Gateway: g} })
	}
	for _, l := range p.Nodes {
		do(func() {
			if n, ok := w.nodes[l.Node]; ok {
				w.nodes[l.Node] = in(n, l.Gateway)
			}
		})
	}
	for _, name := range p.Delete {
		do(func() { delete(w.gateways, name) })
	}
	return all
}

// happen does something that people and machines do to a cluster.
func (w *world) happen() {
	i := w.rand.IntN(8)
	name, pool := fmt.Sprintf("n%d", i), string(rune('a'+w.rand.IntN(4)))
	gateways := []string{"cloud", "a", "b", "mine", "solo-n1"}
	gateway := gateways[w.rand.IntN(len(gateways))]
	switch w.rand.IntN(9) {
	case 0:
		w.nodes[name] = node(name, poolLabel, pool, edgeLabel, "true")
	case 1:
		w.nodes[name] = node(name, edgeLabel, "true")
	case 2:
		w.nodes[name] = node(name)
	case 3:
		delete(w.nodes, name)
	case 4:
		w.pools[pool] = domain.Pool{Edge: w.rand.IntN(2) == 0, Apart: w.rand.IntN(3) == 0}
	case 5:
		delete(w.pools, pool)
	case 6:
		if n, ok := w.nodes[name]; ok {
			w.nodes[name] = by(n, gateway)
		}
	case 7:
		w.gateways[gateway] = theirs(gateway)
	case 8:
		delete(w.gateways, gateway)
	}
}

// TestConverge lets things happen, with a controller that dies in the middle of
// its plans, and checks that nothing of a person's is touched, that one whole plan
// is enough, and that it leaves every node that we manage in a Gateway.
func TestConverge(t *testing.T) {
	for seed := range uint64(300) {
		w := &world{
			rand:  rand.New(rand.NewPCG(seed, 1)),
			nodes: map[string]domain.Node{}, pools: map[string]domain.Pool{}, gateways: map[string]domain.Gateway{},
		}
		for range 60 {
			w.happen()
			p := domain.Decide(config(), w.state())
			w.checkTouches(t, p)
			before := w.dangling() // somebody deleted a Gateway
			w.write(p, w.rand.IntN(4))
			for name := range w.dangling() {
				if !before[name] {
					t.Fatalf("seed %d: the plan %+v left node %s without its Gateway", seed, p, name)
				}
			}
		}
		p := domain.Decide(config(), w.state())
		w.write(p, len(p.Create)+len(p.Nodes)+len(p.Delete))
		if again := domain.Decide(config(), w.state()); w.write(again, 0) > 0 {
			t.Fatalf("seed %d: a whole plan was written, and then: %+v", seed, again)
		}
		w.checkHomes(t)
	}
}

// checkTouches fails on a plan that changes what a person made.
func (w *world) checkTouches(t *testing.T, p domain.Plan) {
	t.Helper()
	for _, g := range p.Create {
		if _, ok := w.gateways[g.Metadata.Name]; ok {
			t.Fatalf("%s is made though it exists", g.Metadata.Name)
		}
	}
	for _, name := range p.Delete {
		if g := w.gateways[name].Gateway; domain.Of(&g) == "" {
			t.Fatalf("%s of a person is deleted", name)
		}
	}
	for _, l := range p.Nodes {
		g, ok := w.gateways[l.Had]
		if ok && domain.Of(&g.Gateway) == "" {
			t.Fatalf("node %s of a person is labelled", l.Node)
		}
	}
}

// dangling returns the nodes that we labelled with the name of no Gateway.
func (w *world) dangling() map[string]bool {
	list := map[string]bool{}
	for name, n := range w.nodes {
		if _, ok := w.gateways[n.Labels[v1beta1.LabelGateway]]; !ok && n.Ours {
			list[name] = true
		}
	}
	return list
}

// checkHomes fails when a node that we manage is in no Gateway.
func (w *world) checkHomes(t *testing.T) {
	t.Helper()
	for name, n := range w.nodes {
		label := n.Labels[v1beta1.LabelGateway]
		if _, ok := w.gateways[label]; !ok && n.Ours {
			t.Fatalf("node %s has %q", name, label)
		}
		if label == "" {
			t.Fatalf("node %s has no label", name)
		}
	}
}

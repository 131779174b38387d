package controller

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/controller/election"
	"corax/control/kube/gateway"
)

const (
	// gatewaysByKey is the index of Gateways by the keys in their entries.
	gatewaysByKey = "corax.io/gateways-by-key"
	// unconfirmedEvery is how often a key that is not confirmed is looked at again.
	unconfirmedEvery = 10 * time.Second
)

// keysOf returns the keys in a Gateway's entries, as an index wants them.
func keysOf(o client.Object) []string {
	g, ok := o.(*gateway.Gateway)
	if !ok {
		return nil
	}
	return election.Keys(g.Spec.Endpoints)
}

// holder returns who else than a node of this Gateway has a key in its entry: the
// first by name, in words; empty: nobody. The same node in another Gateway, from
// where it moves, does not count.
func (r *electorate) holder(ctx context.Context, own string) func(node, key string) string {
	return func(node, key string) string {
		var list gateway.GatewayList
		if err := r.client.List(ctx, &list, client.MatchingFields{gatewaysByKey: key}, client.UnsafeDisableDeepCopy); err != nil {
			r.log.Error("Gateways cannot be listed by key", "err", err)
			return ""
		}
		first := ""
		for i := range list.Items {
			g := &list.Items[i]
			for j := range g.Spec.Endpoints {
				e := &g.Spec.Endpoints[j]
				if g.Name == own || e.NodeName == node || !election.HasKey(e, key) {
					continue
				}
				if who := fmt.Sprintf("gateway %s, node %s", g.Name, e.NodeName); first == "" || who < first {
					first = who
				}
			}
		}
		return first
	}
}

// unconfirmed returns when to look again at keys that are not confirmed; zero: all
// are.
func unconfirmed(g *gateway.Gateway) time.Duration {
	if election.Unconfirmed(g.Spec.Endpoints, g.Status.ActiveEndpoints) {
		return unconfirmedEvery
	}
	return 0
}

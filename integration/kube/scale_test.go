//go:build linux

package kube_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"corax/integration/kube/cluster"
)

// TestScale shows that 5,000 nodes in 1,000 domains are reconciled within a minute,
// with a bounded number of writes, and that nothing is written afterwards.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	const nodes, perDomain = 5000, 5
	c := domainCluster(t)
	var list []cluster.Node
	for i := range nodes {
		n := cluster.Node{
			Name:     fmt.Sprintf("node-%04d", i),
			IPs:      []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})},
			PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + byte(i>>10), byte(i >> 2), byte(i << 6)}), 26)},
		}
		if pool := i / perDomain; pool > 0 { // the first ones are the cloud
			n.Labels = map[string]string{poolLabel: fmt.Sprintf("pool-%03d", pool), edgeLabel: "true"}
		}
		list = append(list, n)
	}
	c.AddNode(t, list...)

	admin := gatewaysOf(t, c.Config())
	since, start := c.Mark(t), time.Now()
	runController(t, c, nil)
	cluster.Eventually(t, 3*time.Minute, "all domains", func(ctx context.Context) error {
		gateways, err := admin.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return err
		}
		settled := 0
		for i := range gateways.Items {
			if settledGateway(gateways.Items[i].Object, perDomain) {
				settled++
			}
		}
		if settled != nodes/perDomain || len(gateways.Items) != settled {
			return fmt.Errorf("%d of %d Gateways are done", settled, len(gateways.Items))
		}
		return nil
	})
	took := time.Since(start)
	t.Logf("done after %v", took)
	if took > time.Minute {
		t.Errorf("it took %v", took)
	}
	// Each node gets its label, and each Gateway is made, gets its endpoints with
	// the Replicas, and its status, which may be written twice.
	writes := controllerWrites(t, c, since)
	counts := map[string]int{}
	for _, w := range writes {
		counts[w.Verb+" "+w.Resource]++
		if w.Code >= 400 && w.Code != 409 {
			t.Errorf("refused: %s", w)
		}
	}
	t.Logf("%d writes: %v", len(writes), counts)
	if most := nodes + 6*nodes/perDomain + 100; len(writes) > most {
		t.Errorf("%d writes, more than %d", len(writes), most)
	}
	still(t, c, 10*time.Second)
}

// settledGateway reports whether a Gateway has all its nodes, and somebody active of
// both types.
func settledGateway(o object, nodes int) bool {
	list, _, _ := unstructured.NestedSlice(o, "status", "nodes")
	active, _, _ := unstructured.NestedSlice(o, "status", "activeEndpoints")
	types := map[string]bool{}
	for _, e := range active {
		if m, ok := e.(object); ok {
			types[fmt.Sprint(m["type"])] = true
		}
	}
	summary, _, _ := unstructured.NestedString(o, "status", "summary", "active")
	return len(list) == nodes && types["tunnel"] && types["proxy"] && strings.Contains(summary, "node-")
}

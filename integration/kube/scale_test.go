//go:build linux

package kube_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

// TestScale brings up 1,000 domains of 5 nodes within a minute, in a bounded number
// of writes, and rests then.
func TestScale(t *testing.T) {
	const pools, size = 1000, 5
	c := domainCluster(t)
	var nodes []cluster.Node
	for p := range pools {
		for i := range size {
			n := edgeNode(fmt.Sprintf("p%04d-n%d", p, i), fmt.Sprintf("p%04d", p))
			k := p*size + i
			n.IPs = []netip.Addr{netip.AddrFrom4([4]byte{172, 16 + byte(k>>16), byte(k >> 8), byte(k)})}
			n.PodCIDRs = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k >> 8), byte(k), 0}), 24)}
			nodes = append(nodes, n)
		}
	}
	c.AddNode(t, nodes...)
	since, began := c.Mark(t), time.Now()
	runController(t, c, func(cfg *controller.Config) { cfg.Disable = only("domains", "gateways"); cfg.Log = nil })
	admin := gatewaysOf(t, c.Config())
	ready := func(ctx context.Context) error {
		list, err := admin.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return err
		}
		up := 0
		for i := range list.Items {
			o := list.Items[i].Object
			listed, _, _ := unstructured.NestedSlice(o, "spec", "endpoints")
			has, _, _ := unstructured.NestedSlice(o, "status", "nodes")
			active, _, _ := unstructured.NestedSlice(o, "status", "activeEndpoints")
			epoch, _, _ := unstructured.NestedString(o, "metadata", "annotations", "corax.io/epoch")
			if len(listed) == 6 && len(has) == size && len(active) == 2 && epoch != "" {
				up++
			}
		}
		if up != pools {
			return fmt.Errorf("%d of %d Gateways are up", up, pools)
		}
		return nil
	}
	cluster.Eventually(t, time.Minute, "all Gateways", func(ctx context.Context) error {
		err := ready(ctx)
		if err != nil {
			pause(ctx, 2*time.Second) // the list is large
		}
		return err
	})
	t.Logf("up after %s", time.Since(began).Round(time.Second))
	count := map[string]int{}
	for _, w := range controllerWrites(t, c, since) {
		if w.Code < 300 { // others were late, and changed nothing
			count[w.Verb+" "+w.Resource]++
		}
	}
	t.Logf("writes: %v", count)
	for what, most := range map[string]int{
		"create gateways": pools, "patch nodes": pools * size,
		// Candidates, and an epoch; some Gateways are seen while their nodes are
		// still being labelled.
		"patch gateways": 3 * pools, "patch gateways/status": 2 * pools,
	} {
		if n := count[what]; n > most {
			t.Errorf("%d times %s: more than %d", n, what, most)
		}
		delete(count, what)
	}
	if len(count) > 0 {
		t.Errorf("other writes: %v", count)
	}
	pause(t.Context(), 5*time.Second) // what was coalesced
	still(t, c, 5*time.Second)
}

//go:build linux

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

// TestScale brings up 1,000 domains of 5 nodes and an exposed cloud within a minute,
// with all that the controller does, in a bounded number of writes, and rests then.
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
	c.ApplyYAML(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: raven-cfg, namespace: kube-system}\ndata: {enable-l3-tunnel: \"true\", enable-l7-proxy: \"true\"}\n")
	nodes = append(nodes, cluster.Node{Name: "c1", IPs: []netip.Addr{netip.MustParseAddr("10.200.0.1")}})
	c.AddNode(t, nodes...)
	since, began := c.Mark(t), time.Now()
	runController(t, c, func(cfg *controller.Config) { cfg.ExposeCloud = "LoadBalancer"; cfg.Log = nil })
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
	cluster.Eventually(t, time.Minute-time.Since(began), "names and the cloud's address", func(ctx context.Context) error {
		err := errors.Join(namesAtScale(ctx, c, pools*size+1), exposedAtScale(ctx, c, admin))
		if err != nil {
			pause(ctx, time.Second) // the hosts file is large
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
		"create gateways": pools + 1, "patch nodes": pools*size + 1,
		// Candidates, and an epoch; some Gateways are seen while their nodes are
		// still being labelled.
		"patch gateways": 3*pools + 10, "patch gateways/status": 2*pools + 10,
		// The hosts file follows once a second at most.
		"create configmaps": 1, "patch configmaps": 62,
		// The cloud's tunnel Service, and the one of the proxy's fronts.
		"create services": 2, "patch services": 4, "create endpointslices": 2, "patch endpointslices": 4,
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

// namesAtScale reports whether the hosts file has so many nodes.
func namesAtScale(ctx context.Context, c *cluster.Cluster, nodes int) error {
	cm, err := c.Client.CoreV1().ConfigMaps("kube-system").Get(ctx, "edge-tunnel-nodes", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if n := strings.Count(cm.Data["tunnel-nodes"], "\n"); n != nodes {
		return fmt.Errorf("the hosts file has %d lines", n)
	}
	return nil
}

// exposedAtScale is the cloud: its Service gets an address, which comes into the
// cloud's entry and into raven-cfg.
func exposedAtScale(ctx context.Context, c *cluster.Cluster, admin gateways) error {
	const ip = "203.0.113.1"
	list, err := c.Client.CoreV1().Services("kube-system").List(ctx, metav1.ListOptions{LabelSelector: gatewayLabel + "=cloud"})
	if err != nil || len(list.Items) != 1 {
		return errors.Join(err, fmt.Errorf("the cloud has %d Services", len(list.Items)))
	}
	if s := &list.Items[0]; len(s.Status.LoadBalancer.Ingress) == 0 {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
		if _, err := c.Client.CoreV1().Services("kube-system").UpdateStatus(ctx, s, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	cloud, err := admin.Get(ctx, "cloud", metav1.GetOptions{})
	if err != nil {
		return err
	}
	entries, _, _ := unstructured.NestedSlice(cloud.Object, "spec", "endpoints")
	if len(entries) == 0 || entries[0].(object)["publicIP"] != ip {
		return fmt.Errorf("the cloud's entries are %v", entries)
	}
	cm, err := c.Client.CoreV1().ConfigMaps("kube-system").Get(ctx, "raven-cfg", metav1.GetOptions{})
	if err == nil && cm.Data["loadbalancer-ip"] != ip {
		err = fmt.Errorf("raven-cfg has %v", cm.Data)
	}
	return err
}

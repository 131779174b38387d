//go:build linux

package kube_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

// calicoCRD is Calico's BlockAffinity as its manifests have it, without the words.
const calicoCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: blockaffinities.crd.projectcalico.org}
spec:
  group: crd.projectcalico.org
  scope: Cluster
  names: {kind: BlockAffinity, listKind: BlockAffinityList, plural: blockaffinities, singular: blockaffinity}
  preserveUnknownFields: false
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              required: [cidr, deleted, node, state]
              properties:
                cidr: {type: string}
                deleted: {type: string}
                node: {type: string}
                state: {type: string}
                type: {type: string}
`

// TestCalico has Calico give blocks to nodes, and take them away.
func TestCalico(t *testing.T) {
	t.Parallel()
	c := domainCluster(t)
	nodes := []cluster.Node{edgeNode("a1", "a"), edgeNode("a2", "a"), {Name: "c1"}}
	for i := range nodes {
		nodes[i].IPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}
		nodes[i].PodCIDRs = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 0}), 24)}
		if i < 2 {
			nodes[i].Annotations = map[string]string{"projectcalico.org/IPv4Address": nodes[i].IPs[0].String() + "/24"}
		}
	}
	c.AddNode(t, nodes...)
	c.ApplyYAML(t, calicoCRD)
	dyn, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	blocks := dyn.Resource(schema.GroupVersionResource{Group: "crd.projectcalico.org", Version: "v1", Resource: "blockaffinities"})
	set := func(name, node, cidr, state string) {
		t.Helper()
		b := &unstructured.Unstructured{Object: object{
			"apiVersion": "crd.projectcalico.org/v1", "kind": "BlockAffinity", "metadata": object{"name": name},
			"spec": object{"node": node, "cidr": cidr, "state": state, "deleted": "false", "type": "host"},
		}}
		cluster.Eventually(t, 20*time.Second, "block "+name, func(ctx context.Context) error {
			_, err := blocks.Apply(ctx, name, b, metav1.ApplyOptions{FieldManager: "calico", Force: true})
			return err
		})
	}
	set("a1-1", "a1", "10.8.0.0/26", "confirmed")
	set("a1-2", "a1", "10.8.0.64/26", "pending")

	runController(t, c, func(cfg *controller.Config) { cfg.Disable = only("domains", "gateways") })
	admin := gatewaysOf(t, c.Config())
	subnets := func(what string, want map[string][]string) {
		t.Helper()
		cluster.Eventually(t, 30*time.Second, what, func(ctx context.Context) error {
			got := map[string][]string{}
			for _, name := range []string{"a", "cloud"} {
				g, err := admin.Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				list, _, _ := unstructured.NestedSlice(g.Object, "status", "nodes")
				for _, n := range list {
					of, _, _ := unstructured.NestedStringSlice(n.(object), "subnets")
					got[n.(object)["nodeName"].(string)] = of
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				return fmt.Errorf("-want +got:\n%s", d)
			}
			return nil
		})
	}
	cloud := []string{"10.244.3.0/24"} // not of Calico: the Node's own
	subnets("what was there", map[string][]string{"a1": {"10.8.0.0/26"}, "a2": {}, "c1": cloud})
	set("a1-2", "a1", "10.8.0.64/26", "confirmed")
	set("a2-1", "a2", "10.8.1.0/26", "confirmed")
	subnets("two more", map[string][]string{"a1": {"10.8.0.0/26", "10.8.0.64/26"}, "a2": {"10.8.1.0/26"}, "c1": cloud})
	set("a1-2", "a2", "10.8.0.64/26", "confirmed")
	subnets("one moved", map[string][]string{"a1": {"10.8.0.0/26"}, "a2": {"10.8.0.64/26", "10.8.1.0/26"}, "c1": cloud})
	if err := blocks.Delete(t.Context(), "a1-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	subnets("one gone", map[string][]string{"a1": {}, "a2": {"10.8.0.64/26", "10.8.1.0/26"}, "c1": cloud})
}

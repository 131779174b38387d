//go:build linux

package kube_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

// nodePoolCRD is a part of OpenYurt's, enough for its objects to be stored as they
// are.
const nodePoolCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: nodepools.apps.openyurt.io}
spec:
  group: apps.openyurt.io
  scope: Cluster
  names: {kind: NodePool, listKind: NodePoolList, plural: nodepools, singular: nodepool}
  versions:
  - name: v1beta1
    served: true
    storage: %t
    schema: &schema {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
  - name: v1beta2
    served: %[2]t
    storage: %[2]t
    schema: *schema
`

const (
	poolLabel    = "apps.openyurt.io/nodepool"
	edgeLabel    = "openyurt.io/is-edge-worker"
	gatewayLabel = "raven.openyurt.io/gateway"
)

// domains is what the tests look at: the domain of each Gateway, "" for one of a
// person, and the Gateway of each node.
type domains struct {
	gateways map[string]string
	nodes    map[string]string
}

// domainsOf reads them.
func domainsOf(ctx context.Context, c *cluster.Cluster, g gateways) (domains, error) {
	d := domains{map[string]string{}, map[string]string{}}
	list, err := g.List(ctx, metav1.ListOptions{})
	if err != nil {
		return d, err
	}
	for i := range list.Items {
		o := &list.Items[i]
		d.gateways[o.GetName()] = o.GetAnnotations()["corax.io/domain"]
	}
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return d, err
	}
	for i := range nodes.Items {
		d.nodes[nodes.Items[i].Name] = nodes.Items[i].Labels[gatewayLabel]
	}
	return d, nil
}

func poolsOf(t *testing.T, c *cluster.Cluster, version string) pools {
	t.Helper()
	d, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	return pools{d.Resource(schema.GroupVersionResource{Group: "apps.openyurt.io", Version: version, Resource: "nodepools"}), version}
}

// pools writes NodePools of one version.
type pools struct {
	dynamic.ResourceInterface
	version string
}

// set makes a NodePool, or gives an existing one another spec.
func (p pools) set(t *testing.T, name string, spec object) {
	t.Helper()
	o := &unstructured.Unstructured{Object: object{
		"apiVersion": "apps.openyurt.io/" + p.version, "kind": "NodePool", "metadata": object{"name": name}, "spec": spec,
	}}
	cluster.Eventually(t, 20*time.Second, "NodePool "+name, func(ctx context.Context) error {
		_, err := p.Apply(ctx, name, o, metav1.ApplyOptions{FieldManager: "test", Force: true})
		return err
	})
}

func (p pools) remove(t *testing.T, name string) {
	t.Helper()
	if err := p.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// domainCluster is a control plane with our CRD.
func domainCluster(t *testing.T) *cluster.Cluster {
	t.Helper()
	c := cluster.Start(t, cluster.Options{})
	c.Apply(t, crd)
	c.ApplyYAML(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: corax-leases}\n")
	return c
}

// step is something that happens to a cluster, and what the domains are soon after.
type step struct {
	name string
	do   func(t *testing.T)
	want domains
}

// play lets the steps happen one after the other.
func play(t *testing.T, c *cluster.Cluster, within time.Duration, steps []step) {
	t.Helper()
	g := gatewaysOf(t, c.Config())
	for _, s := range steps {
		ok := t.Run(s.name, func(t *testing.T) {
			if s.do != nil {
				s.do(t)
			}
			cluster.Eventually(t, within, "the domains", func(ctx context.Context) error {
				got, err := domainsOf(ctx, c, g)
				if err != nil {
					return err
				}
				if diff := cmp.Diff(s.want, got, cmp.AllowUnexported(domains{})); diff != "" {
					return fmt.Errorf("(-want +got):\n%s", diff)
				}
				return nil
			})
		})
		if !ok {
			t.FailNow() // the next steps build on it
		}
	}
}

// still fails when the controller writes anything within some time.
func still(t *testing.T, c *cluster.Cluster, d time.Duration) {
	t.Helper()
	since := c.Mark(t)
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
	for _, w := range controllerWrites(t, c, since) {
		t.Errorf("written though nothing happened: %s", w)
	}
}

func edgeNode(name, pool string) cluster.Node {
	n := cluster.Node{Name: name, Labels: map[string]string{edgeLabel: "true"}}
	if pool != "" {
		n.Labels[poolLabel] = pool
	}
	return n
}

// TestDomainsOfPools shows the domains of a cluster with NodePools.
func TestDomainsOfPools(t *testing.T) {
	t.Parallel()
	c := domainCluster(t)
	c.ApplyYAML(t, fmt.Sprintf(nodePoolCRD, false, true))
	p := poolsOf(t, c, "v1beta2")
	p.set(t, "hangzhou", object{"type": "Edge"})
	runController(t, c, func(cfg *controller.Config) { cfg.Disable = only("domains") })
	admin := gatewaysOf(t, c.Config())

	nodes := map[string]string{}
	made := map[string]string{}
	want := func(f func()) domains {
		f()
		return domains{maps.Clone(made), maps.Clone(nodes)}
	}
	play(t, c, 20*time.Second, []step{
		{"a pool without nodes", nil, want(func() {})},
		{"nodes of the cloud and of a pool", func(t *testing.T) {
			c.AddNode(t, cluster.Node{Name: "c1"}, cluster.Node{Name: "m1", Labels: map[string]string{
				"node-role.kubernetes.io/control-plane": "", poolLabel: "hangzhou",
			}}, cluster.Node{Name: "h1", Labels: map[string]string{poolLabel: "hangzhou"}}, edgeNode("h2", "hangzhou"))
		}, want(func() {
			made["cloud"], made["hangzhou"] = "cloud", "pool/hangzhou"
			nodes["c1"], nodes["m1"], nodes["h1"], nodes["h2"] = "cloud", "cloud", "hangzhou", "hangzhou"
		})},
		{"an edge node without pool", func(t *testing.T) { c.AddNode(t, edgeNode("n1.example.com", "")) }, want(func() {
			made["solo-n1examplecom-626f10fd"], nodes["n1.example.com"] = "node/n1.example.com", "solo-n1examplecom-626f10fd"
		})},
		{"a pool whose nodes do not reach each other", func(t *testing.T) {
			p.set(t, "shops", object{"type": "Edge", "interConnectivity": false})
			c.AddNode(t, edgeNode("s1", "shops"), edgeNode("s2", "shops"))
		}, want(func() {
			made["solo-s1"], made["solo-s2"], nodes["s1"], nodes["s2"] = "node/s1", "node/s2", "solo-s1", "solo-s2"
		})},
		{"they do now", func(t *testing.T) { p.set(t, "shops", object{"type": "Edge", "interConnectivity": true}) }, want(func() {
			delete(made, "solo-s1")
			delete(made, "solo-s2")
			made["shops"], nodes["s1"], nodes["s2"] = "pool/shops", "shops", "shops"
		})},
		{"and absent counts as connected", func(t *testing.T) { p.set(t, "shops", object{"type": "Edge"}) }, want(func() {})},
		{"a node moves", func(t *testing.T) { c.Label(t, "h1", map[string]string{poolLabel: "shops"}) }, want(func() {
			nodes["h1"] = "shops"
		})},
		{"a pool becomes one of the cloud: its edge workers stay", func(t *testing.T) {
			p.set(t, "shops", object{"type": "Cloud"})
		}, want(func() { nodes["h1"] = "cloud" })},
		{"a pool that is called like the cloud", func(t *testing.T) {
			p.set(t, "cloud", object{"type": "Edge"})
			c.AddNode(t, edgeNode("x1", "cloud"))
		}, want(func() { made["cloud-fbe8e3f5"], nodes["x1"] = "pool/cloud", "cloud-fbe8e3f5" })},
		{"a name that a person's Gateway has", func(t *testing.T) {
			admin.create(t, "beijing", object{})
			p.set(t, "beijing", object{"type": "Edge"})
			c.AddNode(t, edgeNode("b1", "beijing"))
		}, want(func() {
			made["beijing"], made["beijing-"+sum("beijing")], nodes["b1"] = "", "pool/beijing", "beijing-"+sum("beijing")
		})},
		{"a person puts a node there: it stays", func(t *testing.T) {
			c.Label(t, "b1", map[string]string{gatewayLabel: "beijing"})
			c.AddNode(t, edgeNode("b2", "beijing"))
		}, want(func() { nodes["b1"], nodes["b2"] = "beijing", "beijing-"+sum("beijing") })},
		{"a label with the name of no Gateway stays", func(t *testing.T) {
			n := edgeNode("p1", "beijing")
			n.Labels[gatewayLabel] = "not-yet"
			c.AddNode(t, n, edgeNode("p2", "beijing"))
		}, want(func() { nodes["p1"], nodes["p2"] = "not-yet", "beijing-"+sum("beijing") })},
		{"somebody deletes a Gateway of ours", func(t *testing.T) {
			if err := admin.Delete(t.Context(), "hangzhou", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			c.AddNode(t, edgeNode("h3", "hangzhou"))
		}, want(func() { nodes["h3"] = "hangzhou" })},
		{"somebody removes a label of ours", func(t *testing.T) {
			c.Label(t, "h2", map[string]string{gatewayLabel: ""})
			c.AddNode(t, edgeNode("h4", "hangzhou"))
		}, want(func() { nodes["h4"] = "hangzhou" })},
		{"a node that was alone goes", func(t *testing.T) { c.DeleteNode(t, "n1.example.com") }, want(func() {
			delete(made, "solo-n1examplecom-626f10fd")
			delete(nodes, "n1.example.com")
		})},
		{"the last nodes of a pool go: its Gateway stays", func(t *testing.T) {
			for _, n := range []string{"h2", "h3", "h4"} {
				c.DeleteNode(t, n)
			}
			c.AddNode(t, edgeNode("z1", "")) // the end of this step
		}, want(func() {
			for _, n := range []string{"h2", "h3", "h4"} {
				delete(nodes, n)
			}
			made["solo-z1"], nodes["z1"] = "node/z1", "solo-z1"
		})},
		{"the pool goes", func(t *testing.T) { p.remove(t, "hangzhou") }, want(func() { delete(made, "hangzhou") })},
	})
	still(t, c, 3*time.Second)
}

// TestDomainsOfLabels shows the domains of a cluster without NodePools, whose CRD
// comes later: then the NodePools count.
func TestDomainsOfLabels(t *testing.T) {
	t.Parallel()
	c := domainCluster(t)
	runController(t, c, func(cfg *controller.Config) {
		cfg.Disable, cfg.CloudDomains = only("domains"), []string{"vpc"}
	})
	c.AddNode(t, cluster.Node{Name: "c1", Labels: map[string]string{poolLabel: "vpc"}}, cluster.Node{Name: "c2"},
		cluster.Node{Name: "h1", Labels: map[string]string{poolLabel: "Hangzhou.1"}}, edgeNode("s1", ""))
	hashed := "hangzhou1-" + sum("Hangzhou.1")
	play(t, c, 20*time.Second, []step{{"by label", nil, domains{
		map[string]string{"cloud": "cloud", hashed: "pool/Hangzhou.1", "solo-s1": "node/s1"},
		map[string]string{"c1": "cloud", "c2": "cloud", "h1": hashed, "s1": "solo-s1"},
	}}})
	still(t, c, 2*time.Second)
	c.ApplyYAML(t, fmt.Sprintf(nodePoolCRD, true, false))
	p := poolsOf(t, c, "v1beta1")
	p.set(t, "vpc", object{"type": "Edge"})
	play(t, c, 90*time.Second, []step{{"NodePools of v1beta1 appear", nil, domains{
		map[string]string{"cloud": "cloud", "vpc": "pool/vpc", "solo-s1": "node/s1"},
		map[string]string{"c1": "vpc", "c2": "cloud", "h1": "cloud", "s1": "solo-s1"},
	}}})
	still(t, c, 2*time.Second)
}

// TestDomainsRestart kills the controller at every request that changes something,
// and starts another: nothing leaks.
func TestDomainsRestart(t *testing.T) {
	t.Parallel()
	c := domainCluster(t)
	c.ApplyYAML(t, fmt.Sprintf(nodePoolCRD, false, true))
	p := poolsOf(t, c, "v1beta2")
	p.set(t, "hangzhou", object{"type": "Edge"})
	c.AddNode(t, cluster.Node{Name: "c1"}, edgeNode("h1", "hangzhou"), edgeNode("h2", "hangzhou"))
	turn := []step{
		{"apart", func(t *testing.T) { p.set(t, "hangzhou", object{"type": "Edge", "interConnectivity": false}) }, domains{
			map[string]string{"cloud": "cloud", "solo-h1": "node/h1", "solo-h2": "node/h2"},
			map[string]string{"c1": "cloud", "h1": "solo-h1", "h2": "solo-h2"},
		}},
		{"together", func(t *testing.T) { p.set(t, "hangzhou", object{"type": "Edge"}) }, domains{
			map[string]string{"cloud": "cloud", "hangzhou": "pool/hangzhou"},
			map[string]string{"c1": "cloud", "h1": "hangzhou", "h2": "hangzhou"},
		}},
	}
	for n := range 5 {
		t.Run(fmt.Sprintf("dies at write %d", n), func(t *testing.T) {
			dies := &lastWords{after: int64(n)}
			turn[n%2].do(t)
			stop := runController(t, c, func(cfg *controller.Config) {
				cfg.Disable, cfg.LeaderElect, cfg.WrapTransport = only("domains"), false, dies.wrap
			})
			cluster.Eventually(t, 20*time.Second, "the death", dies.dead)
			if err := stop(); err != nil {
				t.Error(err)
			}
			runController(t, c, func(cfg *controller.Config) { cfg.Disable, cfg.LeaderElect = only("domains"), false })
			play(t, c, 20*time.Second, []step{{turn[n%2].name, nil, turn[n%2].want}})
		})
	}
}

// TestTwoControllers shows that one of two acts, and how soon the other takes over.
func TestTwoControllers(t *testing.T) {
	c := domainCluster(t)
	stop := runController(t, c, func(cfg *controller.Config) { cfg.Disable = only("domains") })
	c.AddNode(t, cluster.Node{Name: "c1"})
	play(t, c, 20*time.Second, []step{{"the first acts", nil, domains{
		map[string]string{"cloud": "cloud"}, map[string]string{"c1": "cloud"},
	}}})
	first := holder(t, c)
	runController(t, c, func(cfg *controller.Config) { cfg.Disable = only("domains") })
	c.AddNode(t, edgeNode("s1", ""))
	play(t, c, 20*time.Second, []step{{"and goes on", nil, domains{
		map[string]string{"cloud": "cloud", "solo-s1": "node/s1"}, map[string]string{"c1": "cloud", "s1": "solo-s1"},
	}}})
	if h := holder(t, c); h != first {
		t.Fatalf("the leader changed from %s to %s", first, h)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	released := time.Now()
	cluster.Eventually(t, 10*time.Second, "another leader", func(context.Context) error {
		if h := holder(t, c); h == "" || h == first {
			return fmt.Errorf("it is %q", h)
		}
		return nil
	})
	if d := time.Since(released); d > time.Second {
		t.Errorf("it took %v", d)
	}
	c.AddNode(t, edgeNode("s2", ""))
	play(t, c, 5*time.Second, []step{{"which acts", nil, domains{
		map[string]string{"cloud": "cloud", "solo-s1": "node/s1", "solo-s2": "node/s2"},
		map[string]string{"c1": "cloud", "s1": "solo-s1", "s2": "solo-s2"},
	}}})
	var agents []string
	for _, w := range controllerWrites(t, c, 0) {
		if !slices.Contains(agents, w.Verb+" "+w.Resource+" "+w.Name) {
			agents = append(agents, w.Verb+" "+w.Resource+" "+w.Name)
			continue
		}
		t.Errorf("written twice: %s", w)
	}
}

// TestControllerOutlivesAPI shows that a controller whose API server went away for
// longer than its Lease acts soon after it is back, and writes nothing twice.
func TestControllerOutlivesAPI(t *testing.T) {
	t.Parallel()
	c := domainCluster(t)
	health := freeAddr(t)
	runController(t, c, func(cfg *controller.Config) { cfg.Disable, cfg.HealthAddr = only("domains"), health })
	c.AddNode(t, cluster.Node{Name: "c1"})
	want := domains{map[string]string{"cloud": "cloud"}, map[string]string{"c1": "cloud"}}
	play(t, c, 20*time.Second, []step{{"before", nil, want}})
	c.StopAPI(t)
	cluster.Eventually(t, 30*time.Second, "it gives up its Lease", func(ctx context.Context) error {
		return unready(ctx, health, "waiting for the API server")
	})
	c.StartAPI(t)
	since := c.Mark(t)
	c.AddNode(t, edgeNode("s1", ""))
	want.gateways["solo-s1"], want.nodes["s1"] = "node/s1", "solo-s1"
	play(t, c, 10*time.Second, []step{{"and after", nil, want}})
	if w := controllerWrites(t, c, since); len(w) != 2 {
		t.Errorf("a Gateway and a label were to be written, and these were: %v", w)
	}
}

// TestForeignController shows that ours keeps off what yurt-manager looks after.
func TestForeignController(t *testing.T) {
	t.Parallel()
	c := domainCluster(t)
	admin := gatewaysOf(t, c.Config())
	foreign := newGateway("old", object{"tunnelConfig": object{"Replicas": int64(1)}})
	foreign.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "corax-controller"})
	foreign.SetAnnotations(map[string]string{"corax.io/domain": "pool/gone"})
	if _, err := admin.Create(t.Context(), foreign, metav1.CreateOptions{FieldManager: "yurt-manager"}); err != nil {
		t.Fatal(err)
	}
	health := freeAddr(t)
	stop := runController(t, c, func(cfg *controller.Config) { cfg.Disable, cfg.HealthAddr = only("domains"), health })
	c.AddNode(t, cluster.Node{Name: "c1"})
	play(t, c, 20*time.Second, []step{{"the rest goes on", nil, domains{
		map[string]string{"cloud": "cloud", "old": "pool/gone"}, map[string]string{"c1": "cloud"},
	}}})
	cluster.Eventually(t, 10*time.Second, "the reason in readyz", func(ctx context.Context) error {
		return unready(ctx, health, "Gateway old: yurt-manager wrote it at")
	})
	cluster.Eventually(t, 10*time.Second, "an event", func(ctx context.Context) error {
		return hasEvent(ctx, c, "OtherController", "old")
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	runController(t, c, func(cfg *controller.Config) { cfg.Disable, cfg.TakeOver = only("domains"), true })
	play(t, c, 20*time.Second, []step{{"unless it is told to take over", nil, domains{
		map[string]string{"cloud": "cloud"}, map[string]string{"c1": "cloud"},
	}}})
}

// TestForeignCRD shows that ours does nothing while yurt-manager serves the CRD.
func TestForeignCRD(t *testing.T) {
	t.Parallel()
	c := domainCluster(t)
	crds, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	definition := crds.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	_, err = definition.Patch(t.Context(), "gateways.raven.openyurt.io", types.MergePatchType, []byte(`{"spec": {"conversion": {
		"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1beta1"], "clientConfig": {"service":
		{"namespace": "kube-system", "name": "yurt-manager-webhook-service", "path": "/convert"}}}}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	health := freeAddr(t)
	since := c.Mark(t)
	runController(t, c, func(cfg *controller.Config) { cfg.HealthAddr = health })
	c.AddNode(t, cluster.Node{Name: "c1"}, edgeNode("s1", ""))
	cluster.Eventually(t, 20*time.Second, "the reason in readyz", func(ctx context.Context) error {
		return unready(ctx, health, "the CRD is converted by the webhook of yurt-manager")
	})
	for _, w := range controllerWrites(t, c, since) {
		t.Errorf("written all the same: %s", w)
	}
}

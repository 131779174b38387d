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

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

// TestUninstall shows that everything which the controller made goes, and nothing
// else; and that nothing is removed while a controller acts.
func TestUninstall(t *testing.T) {
	t.Parallel()
	c := domainCluster(t)
	c.ApplyYAML(t, `
apiVersion: v1
kind: ConfigMap
metadata: {name: raven-cfg, namespace: kube-system}
data: {enable-l3-tunnel: "true", enable-l7-proxy: "true"}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: kube-system}
spec: {ports: [{port: 80}]}
`)
	admin := gatewaysOf(t, c.Config())
	admin.create(t, "mine", object{
		"exposeType": "LoadBalancer", "tunnelConfig": object{"Replicas": int64(1)},
		"endpoints": []any{endpoint("p1", "tunnel", "underNAT", false)},
	})
	person := cluster.Node{Name: "p1", Labels: map[string]string{gatewayLabel: "mine"}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.3")}}
	c.AddNode(t, person, cluster.Node{Name: "c1", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.4")}}, edgeNode("s1", ""))

	stop := runController(t, c, func(cfg *controller.Config) { cfg.ExposeCloud = "LoadBalancer" })
	cluster.Eventually(t, 30*time.Second, "Services of both", func(ctx context.Context) error {
		list, err := ownServices(ctx, c)
		seen := map[string]bool{}
		for _, s := range list {
			seen[s.Labels[gatewayLabel]] = true
		}
		if err == nil && (!seen["cloud"] || !seen["mine"]) {
			err = fmt.Errorf("only %v", seen)
		}
		return err
	})
	cfg := controller.Config{Kubeconfig: c.Kubeconfig(t, c.Config()), LeaderElect: true, Log: testLog(t)}
	short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := controller.Uninstall(short, cfg, ""); err == nil || !strings.Contains(err.Error(), "another controller holds") {
		t.Fatalf("while a controller acts: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		long, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := controller.Uninstall(long, cfg, "corax-controller"); err != nil {
			t.Fatal(err)
		}
		if err := leftovers(t.Context(), c, admin); err != nil {
			t.Fatal(err)
		}
	}
}

func ownServices(ctx context.Context, c *cluster.Cluster) ([]corev1.Service, error) {
	list, err := c.Client.CoreV1().Services("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=corax-controller"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// leftovers returns what is there and should not be, and the other way round.
func leftovers(ctx context.Context, c *cluster.Cluster, g gateways) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	d, err := domainsOf(ctx, c, g)
	if err != nil {
		return err
	}
	if len(d.gateways) != 1 || d.nodes["p1"] != "mine" || d.nodes["c1"] != "" || d.nodes["s1"] != "" {
		bad("domains %+v", d)
	}
	mine, err := g.Get(ctx, "mine", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if f, a := mine.GetFinalizers(), mine.GetAnnotations(); len(f) > 0 || len(a) > 0 {
		bad("finalizers %v and annotations %v on a person's Gateway", f, a)
	}
	services, err := c.Client.CoreV1().Services("kube-system").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range services.Items {
		if name := services.Items[i].Name; name != "other" {
			bad("Service %s", name)
		}
	}
	slices, err := c.Client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range slices.Items {
		bad("EndpointSlice %s", slices.Items[i].Name)
	}
	leases, err := c.Client.CoordinationV1().Leases("").List(ctx, metav1.ListOptions{LabelSelector: "apiserver.kubernetes.io/identity!=kube-apiserver"})
	if err != nil {
		return err
	}
	for i := range leases.Items {
		bad("Lease %s", leases.Items[i].Name)
	}
	maps, err := c.Client.CoreV1().ConfigMaps("kube-system").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range maps.Items {
		m := &maps.Items[i]
		switch {
		case m.Name == "raven-cfg" && (len(m.Annotations) > 0 && m.Annotations["corax.io/balancer"] != "" || m.Data["enable-l3-tunnel"] != "true"):
			bad("raven-cfg %v %v", m.Annotations, m.Data)
		case m.Name == "edge-tunnel-nodes":
			bad("ConfigMap %s", m.Name)
		}
	}
	return errors.Join(errs...)
}

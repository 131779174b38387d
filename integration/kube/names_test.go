//go:build linux

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

const proxyService = "x-raven-proxy-internal-svc"

// named is what the names look like.
type named struct {
	hosts map[string]string // address by name; "front" is the Service's
	ports map[string]int32  // front by name of the Service's port
	ends  []string
	notes map[string]string // the map of ports, by Gateway
}

func namesOf(ctx context.Context, c *cluster.Cluster, g gateways) (named, error) {
	n := named{hosts: map[string]string{}, ports: map[string]int32{}, notes: map[string]string{}}
	front := "none"
	s, err := c.Client.CoreV1().Services("kube-system").Get(ctx, proxyService, metav1.GetOptions{})
	switch {
	case err == nil:
		front = s.Spec.ClusterIP
		for _, p := range s.Spec.Ports {
			n.ports[fmt.Sprintf("%s:%d", p.Name, p.Port)] = p.TargetPort.IntVal
		}
	case !apierrors.IsNotFound(err):
		return n, err
	}
	cm, err := c.Client.CoreV1().ConfigMaps("kube-system").Get(ctx, "edge-tunnel-nodes", metav1.GetOptions{})
	if err != nil {
		return n, err
	}
	for line := range strings.Lines(cm.Data["tunnel-nodes"]) {
		ip, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if ip == front {
			ip = "front"
		}
		n.hosts[name] = ip
	}
	list, err := c.Client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + proxyService})
	if err != nil {
		return n, err
	}
	for _, e := range list.Items {
		for _, x := range e.Endpoints {
			n.ends = append(n.ends, *x.NodeName+" "+strings.Join(x.Addresses, ","))
		}
	}
	slices.Sort(n.ends)
	all, err := g.List(ctx, metav1.ListOptions{})
	if err != nil {
		return n, err
	}
	for _, o := range all.Items {
		if a, ok := o.GetAnnotations()["corax.io/proxy-ports"]; ok {
			n.notes[o.GetName()] = a
		}
	}
	return n, nil
}

func waitNamed(t *testing.T, c *cluster.Cluster, g gateways, want named) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, "the names", func(ctx context.Context) error {
		got, err := namesOf(ctx, c, g)
		if err != nil {
			return err
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(named{})); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// TestNames runs all reconcilers over a cloud and two sites with one address.
func TestNames(t *testing.T) {
	c := domainCluster(t)
	g := gatewaysOf(t, c.Config())
	ip := netip.MustParseAddr
	edge := func(name, pool, hostname string) cluster.Node {
		n := edgeNode(name, pool)
		n.IPs, n.Hostname = []netip.Addr{ip("192.168.0.10")}, hostname
		return n
	}
	c.AddNode(t,
		cluster.Node{Name: "c1", IPs: []netip.Addr{ip("10.0.0.1"), ip("2001:db8::1")}},
		edge("a1", "pool-a", "a1.example.org"), edge("b1", "pool-b", "kubernetes.default.svc"))
	runController(t, c, func(cfg *controller.Config) { cfg.ExposeCloud, cfg.LeaderElect = "PublicIP", false })

	want := named{
		hosts: map[string]string{"c1": "10.0.0.1", "a1": "front", "a1.example.org": "front", "b1": "front"},
		ports: map[string]int32{"https-10250:10250": 10281},
		ends:  []string{"c1 10.0.0.1", "c1 2001:db8::1"},
		notes: map[string]string{"cloud": "10250=10281"},
	}
	waitNamed(t, c, g, want)

	t.Run("ports of two Gateways", func(t *testing.T) {
		set := func(name, https, http string) {
			t.Helper()
			if err := g.merge(t.Context(), name, object{"spec": object{"proxyConfig": object{"proxyHTTPSPort": https, "proxyHTTPPort": http}}}); err != nil {
				t.Fatal(err)
			}
		}
		set("cloud", "10250,9100", "10255")
		set("pool-a", "9100,9200", "10255")
		want.ports = map[string]int32{"https-10250:10250": 10281, "https-9100:9100": 10285, "https-9200:9200": 10286, "http-10255:10255": 10282}
		want.notes["cloud"] = "10250=10281,9100=10285,9200=10286"
		waitNamed(t, c, g, want)
		// 9100 goes, 9200 keeps its front; of nine more two get none.
		set("cloud", "10250", "")
		set("pool-a", "9200,9201,9202,9203,9204,9205,9206,9207,9208,9209", "")
		want.ports = map[string]int32{"https-10250:10250": 10281, "https-9200:9200": 10286, "https-9201:9201": 10285}
		note := "10250=10281,9201=10285,9200=10286"
		for i := range 6 {
			want.ports[fmt.Sprintf("https-%[1]d:%[1]d", 9202+i)] = int32(10287 + i)
			note += fmt.Sprintf(",%d=%d", 9202+i, 10287+i)
		}
		want.notes["cloud"] = note
		waitNamed(t, c, g, want)
		cluster.Eventually(t, 10*time.Second, "the event", func(ctx context.Context) error { return hasEvent(ctx, c, "ProxyPorts", "pool-a") })
		set("pool-a", "", "")
		want.ports, want.notes["cloud"] = map[string]int32{"https-10250:10250": 10281}, "10250=10281"
		waitNamed(t, c, g, want)
	})
	t.Run("idle", func(t *testing.T) {
		since := quietSince(t, c)
		if w := controllerWrites(t, c, since); len(w) > 0 {
			t.Errorf("an idle cluster is written: %v", w)
		}
	})
	t.Run("wiped", func(t *testing.T) {
		if err := c.Client.CoreV1().ConfigMaps("kube-system").Delete(t.Context(), "edge-tunnel-nodes", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		waitNamed(t, c, g, want)
	})
	t.Run("a node moves and another one goes", func(t *testing.T) {
		c.DeleteNode(t, "b1")
		c.AddNode(t, cluster.Node{Name: "c2", IPs: []netip.Addr{ip("10.0.0.2")}})
		delete(want.hosts, "b1")
		want.hosts["c2"] = "10.0.0.2"
		waitNamed(t, c, g, want)
	})
	t.Run("the proxy is off", func(t *testing.T) {
		c.ApplyYAML(t, `
apiVersion: v1
kind: ConfigMap
metadata: {name: raven-cfg, namespace: kube-system}
data: {enable-l7-proxy: "false"}
`)
		off := named{
			hosts: map[string]string{"c1": "10.0.0.1", "c2": "10.0.0.2", "a1": "192.168.0.10", "a1.example.org": "192.168.0.10"},
			ports: map[string]int32{}, notes: want.notes,
		}
		cluster.Eventually(t, 20*time.Second, "no Service", func(ctx context.Context) error {
			_, err := c.Client.CoreV1().Services("kube-system").Get(ctx, proxyService, metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				return fmt.Errorf("it is there: %w", err)
			}
			return nil
		})
		waitNamed(t, c, g, off)
		patchSettings(t, c, map[string]string{"enable-l7-proxy": "true"})
		waitNamed(t, c, g, want)
	})
}

// TestNamesAdoption: the Service that yurt-manager made keeps its ClusterIP.
func TestNamesAdoption(t *testing.T) {
	c := domainCluster(t)
	c.ApplyYAML(t, `
apiVersion: v1
kind: Service
metadata: {name: `+proxyService+`, namespace: kube-system, labels: {app: raven}}
spec: {ports: [{name: https-10250, port: 10250, targetPort: 10263}, {name: https-9100, port: 9100, targetPort: 10263}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: edge-tunnel-nodes, namespace: kube-system}
data: {tunnel-nodes: "10.9.9.9\tx\n", theirs: "1"}
`)
	was, err := c.Client.CoreV1().Services("kube-system").Get(t.Context(), proxyService, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.AddNode(t, cluster.Node{Name: "c1", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	runController(t, c, func(cfg *controller.Config) { cfg.ExposeCloud, cfg.LeaderElect = "PublicIP", false })
	waitNamed(t, c, gatewaysOf(t, c.Config()), named{
		hosts: map[string]string{"c1": "10.0.0.1"}, ports: map[string]int32{"https-10250:10250": 10281},
		ends: []string{"c1 10.0.0.1"}, notes: map[string]string{"cloud": "10250=10281"},
	})
	is, err := c.Client.CoreV1().Services("kube-system").Get(t.Context(), proxyService, metav1.GetOptions{})
	if err != nil || is.UID != was.UID || is.Spec.ClusterIP != was.Spec.ClusterIP || is.Spec.Type != corev1.ServiceTypeClusterIP {
		t.Errorf("%+v, %v", is, err)
	}
	cm, err := c.Client.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "edge-tunnel-nodes", metav1.GetOptions{})
	if err != nil || cm.Data["theirs"] != "1" {
		t.Errorf("%+v, %v", cm, err)
	}
}

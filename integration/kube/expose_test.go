//go:build linux

package kube_test

import (
	"context"
	"encoding/json"
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
	"k8s.io/apimachinery/pkg/types"

	"corax/control/controller"
	"corax/control/kube/gateway"
	"corax/integration/kube/cluster"
)

// hubNode is a node of the cloud with an address.
func hubNode(name, ip string) cluster.Node {
	return cluster.Node{Name: name, Labels: map[string]string{gatewayLabel: "cloud"}, IPs: []netip.Addr{netip.MustParseAddr(ip)}}
}

// exposedCluster is one with a Gateway "cloud" of two hubs, behind balancers.
func exposedCluster(t *testing.T, opt cluster.Options) (*cluster.Cluster, gateways) {
	t.Helper()
	c := cluster.Start(t, opt)
	c.Apply(t, crd)
	c.ApplyYAML(t, `
apiVersion: v1
kind: ConfigMap
metadata: {name: raven-cfg, namespace: kube-system}
data: {enable-l3-tunnel: "true", enable-l7-proxy: "true", acl-entry: "100.64.0.0/10,47.0.0.0/8"}
`)
	c.AddNode(t, hubNode("hub-1", "10.0.0.1"), hubNode("hub-2", "10.0.0.2"))
	g := gatewaysOf(t, c.Config())
	entries := []any{
		endpoint("hub-1", "tunnel", "port", int64(4500), "underNAT", false),
		endpoint("hub-2", "tunnel", "port", int64(4501), "underNAT", false),
		endpoint("hub-1", "proxy", "port", int64(10262), "underNAT", false),
	}
	g.create(t, "cloud", object{"exposeType": "LoadBalancer", "endpoints": entries})
	g.status(t, "cloud", object{"activeEndpoints": entries})
	return c, g
}

// typed reads a Gateway.
func (g gateways) typed(ctx context.Context, name string) (*gateway.Gateway, error) {
	u, err := g.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	b, err := u.MarshalJSON()
	if err != nil {
		return nil, err
	}
	t := &gateway.Gateway{}
	return t, json.Unmarshal(b, t)
}

// published returns where the entries of a Gateway say that they are, in order.
func (g gateways) published(ctx context.Context, name string) ([]string, error) {
	t, err := g.typed(ctx, name)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range t.Spec.Endpoints {
		s := fmt.Sprintf("%s:%d", e.PublicIP, e.PublicPort)
		if p := e.Config["corax.io/tls-port"]; p != "" {
			s += " tls " + p
		}
		list = append(list, s)
	}
	return list, nil
}

// waitPublished waits until exactly these addresses are published, in any order.
func waitPublished(t *testing.T, g gateways, want func([]string) bool) []string {
	t.Helper()
	var list []string
	cluster.Eventually(t, 30*time.Second, "the addresses of the hubs", func(ctx context.Context) (err error) {
		if list, err = g.published(ctx, "cloud"); err == nil && !want(list) {
			err = fmt.Errorf("%q", list)
		}
		return err
	})
	return list
}

func allPublished(list []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, ":") })
}

func nonePublished(list []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return s != ":0" })
}

// waitExposed waits until exactly so many Services and slices of ours are there.
func waitExposed(t *testing.T, c *cluster.Cluster, services, endpointSlices int) []corev1.Service {
	t.Helper()
	var list []corev1.Service
	cluster.Eventually(t, 30*time.Second, "the Services", func(ctx context.Context) (err error) {
		if list, err = ownServices(ctx, c); err != nil {
			return err
		}
		all, err := c.Client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(list) != services || len(all.Items) != endpointSlices {
			return fmt.Errorf("%d Services and %d EndpointSlices", len(list), len(all.Items))
		}
		return nil
	})
	return list
}

// TestExpose takes a Gateway through its life, behind the balancers of a cloud.
func TestExpose(t *testing.T) {
	c, g := exposedCluster(t, cluster.Options{Controllers: cluster.UsualControllers()})
	cloud := playBalancers(t, c, false)
	stop := runController(t, c, func(cfg *controller.Config) {
		cfg.Disable, cfg.ClusterID, cfg.LeaderElect = only("expose", "settings"), "c1234", false
	})
	services := waitExposed(t, c, 2, 2)
	list := waitPublished(t, g, allPublished)
	if list[0] != list[2] || !strings.HasSuffix(list[0], ":4500") || !strings.HasSuffix(list[1], ":4501 tls 4501") {
		t.Errorf("published %q", list)
	}
	for _, s := range services {
		if !slices.Equal(s.Spec.LoadBalancerSourceRanges, []string{"47.0.0.0/8", "100.64.0.0/10"}) ||
			s.Annotations["service.beta.kubernetes.io/alibaba-cloud-loadbalancer-name"] != "k8s/raven-agent-ds/kube-system/c1234" {
			t.Errorf("%+v", s)
		}
	}
	cluster.Eventually(t, 10*time.Second, "conditions and the balancer's address", func(ctx context.Context) error {
		typed, err := g.typed(ctx, "cloud")
		if err != nil {
			return err
		}
		got := map[string]string{}
		for _, x := range typed.Status.Conditions {
			got[x.Type] = string(x.Status) + " " + x.Reason
		}
		if diff := cmp.Diff(map[string]string{"Exposed": "True Published", "AllowList": "True Applied"}, got); diff != "" {
			return errors.New(diff)
		}
		cm, err := c.Client.CoreV1().ConfigMaps("kube-system").Get(ctx, "raven-cfg", metav1.GetOptions{})
		if err == nil && cm.Data["loadbalancer-ip"] == "" {
			err = fmt.Errorf("raven-cfg has %v", cm.Data)
		}
		return err
	})
	settled := c.Mark(t)

	t.Run("a Service is deleted by hand", func(t *testing.T) {
		err := c.Client.CoreV1().Services("kube-system").Delete(t.Context(), services[0].Name, metav1.DeleteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		waitPublished(t, g, func(l []string) bool { return allPublished(l) && !slices.Equal(l, list) })
		waitExposed(t, c, 2, 2)
		if n := len(controllerWrites(t, c, settled)); n == 0 {
			t.Error("the count of writes sees nothing")
		}
	})
	t.Run("idle", func(t *testing.T) {
		since := quietSince(t, c)
		if w := controllerWrites(t, c, since); len(w) > 0 {
			t.Errorf("an idle cluster is written: %v", w)
		}
	})
	t.Run("the list is refused", func(t *testing.T) {
		patchSettings(t, c, map[string]string{"acl-entry": "47.0.0.0/8,x"})
		cluster.Eventually(t, 10*time.Second, "the event", func(ctx context.Context) error { return hasEvent(ctx, c, "AllowListRefused", "cloud") })
		cluster.Eventually(t, 10*time.Second, "the event", func(ctx context.Context) error { return hasEvent(ctx, c, "BadSetting", "raven-cfg") })
		for _, s := range waitExposed(t, c, 2, 2) {
			if len(s.Spec.LoadBalancerSourceRanges) != 2 {
				t.Errorf("%v", s.Spec.LoadBalancerSourceRanges)
			}
		}
		patchSettings(t, c, map[string]string{"acl-entry": ""})
		cluster.Eventually(t, 10*time.Second, "no list", func(ctx context.Context) error {
			list, err := ownServices(ctx, c)
			for _, s := range list {
				if len(s.Spec.LoadBalancerSourceRanges) > 0 {
					err = fmt.Errorf("%v", s.Spec.LoadBalancerSourceRanges)
				}
			}
			return err
		})
	})
	t.Run("both modes are switched off", func(t *testing.T) {
		patchSettings(t, c, map[string]string{"enable-l3-tunnel": "false", "enable-l7-proxy": "false"})
		waitPublished(t, g, nonePublished)
		waitExposed(t, c, 0, 0)
		if held := cloud.held(); len(held) > 0 {
			t.Errorf("balancers are left: %v", held)
		}
		patchSettings(t, c, map[string]string{"enable-l3-tunnel": "true"})
		waitPublished(t, g, allPublished)
	})
	t.Run("deleted while the controller is away", func(t *testing.T) {
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if err := g.Delete(t.Context(), "cloud", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := g.get(t, "cloud"); got.GetDeletionTimestamp() == nil || len(cloud.held()) != 2 {
			t.Fatalf("%v, balancers %v", got.GetFinalizers(), cloud.held())
		}
		runController(t, c, func(cfg *controller.Config) { cfg.Disable, cfg.LeaderElect = only("expose", "settings"), false })
		waitExposed(t, c, 0, 0)
		cluster.Eventually(t, 10*time.Second, "the Gateway's end", func(ctx context.Context) error {
			_, err := g.Get(ctx, "cloud", metav1.GetOptions{})
			if err == nil || !apierrors.IsNotFound(err) {
				return fmt.Errorf("it is there: %w", err)
			}
			if held := cloud.held(); len(held) > 0 {
				return fmt.Errorf("balancers are left: %v", held)
			}
			return nil
		})
	})
}

// patchSettings changes raven-cfg.
func patchSettings(t *testing.T, c *cluster.Cluster, data map[string]string) {
	t.Helper()
	b, err := json.Marshal(object{"data": data})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.CoreV1().ConfigMaps("kube-system").Patch(t.Context(), "raven-cfg", types.MergePatchType, b, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// quietSince returns a place in the order of writes after which three seconds have
// passed. What was under way before may still write for a while: it begins anew
// then, a few times.
func quietSince(t *testing.T, c *cluster.Cluster) cluster.Mark {
	t.Helper()
	var since cluster.Mark
	for range 5 {
		since = c.Mark(t)
		select {
		case <-time.After(3 * time.Second):
		case <-t.Context().Done():
		}
		if len(controllerWrites(t, c, since)) == 0 {
			break
		}
	}
	return since
}

// TestExposeRefusedProtocols: a cloud that gives no address to a Service with two
// protocols gets two Services, with one address.
func TestExposeRefusedProtocols(t *testing.T) {
	c, g := exposedCluster(t, cluster.Options{})
	playBalancers(t, c, true)
	runController(t, c, func(cfg *controller.Config) { cfg.Disable, cfg.LeaderElect = only("expose"), false })
	for _, s := range waitExposed(t, c, 2, 2) {
		// The cloud says so: nobody wants to wait for two minutes here.
		b, err := json.Marshal(object{"status": object{"conditions": []any{object{
			"type": corev1.LoadBalancerPortsError, "status": "True", "reason": "MixedProtocolNotSupported", "message": "m",
			"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client.CoreV1().Services(s.Namespace).Patch(t.Context(), s.Name, types.MergePatchType, b, metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	waitPublished(t, g, allPublished)
	services := waitExposed(t, c, 4, 4)
	cluster.Eventually(t, 10*time.Second, "one address for both protocols", func(ctx context.Context) (err error) {
		if services, err = ownServices(ctx, c); err != nil {
			return err
		}
		ports := map[string][]string{}
		for _, s := range services {
			if len(s.Status.LoadBalancer.Ingress) != 1 || len(s.Spec.Ports) != 1 {
				return fmt.Errorf("%s: %+v", s.Name, s.Status)
			}
			ip := s.Status.LoadBalancer.Ingress[0].IP
			ports[ip] = append(ports[ip], string(s.Spec.Ports[0].Protocol))
		}
		if len(ports) != 2 {
			return fmt.Errorf("%v", ports)
		}
		return nil
	})
	waitPublished(t, g, func(list []string) bool { return strings.HasSuffix(list[1], ":4501 tls 4501") })
}

// TestExposeAdoption: what yurt-manager left is taken over, its mirrored slices go.
func TestExposeAdoption(t *testing.T) {
	c, g := exposedCluster(t, cluster.Options{Controllers: cluster.UsualControllers()})
	const name = "x-raven-tunnel-svc-cloud-0a1b2c3d"
	c.ApplyYAML(t, `
apiVersion: v1
kind: Service
metadata:
  name: `+name+`
  namespace: kube-system
  labels: {raven.openyurt.io/gateway: cloud, raven.openyurt.io/gateway-type: tunnel, raven.openyurt.io/endpoints-name: hub-1}
  annotations: {svc.openyurt.io/discard: "true", theirs: "1"}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 4500, protocol: UDP, targetPort: 4500}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: `+name+`, namespace: kube-system}
subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 4500, protocol: UDP}]}]
`)
	cluster.Eventually(t, 20*time.Second, "the mirrored slice", func(ctx context.Context) error {
		all, err := c.Client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{})
		if err == nil && len(all.Items) != 1 {
			err = fmt.Errorf("%d slices", len(all.Items))
		}
		return err
	})
	playBalancers(t, c, false)
	waitAddress(t, c, name)
	runController(t, c, func(cfg *controller.Config) { cfg.Disable, cfg.LeaderElect = only("expose"), false })
	waitPublished(t, g, allPublished)
	services := waitExposed(t, c, 3, 3) // one of them for TCP: the other works, and is left alone
	i := slices.IndexFunc(services, func(s corev1.Service) bool { return s.Name == name })
	if i < 0 || services[i].Annotations["theirs"] != "1" || len(services[i].Spec.Ports) != 1 {
		t.Fatalf("%v", services)
	}
	if _, err := c.Client.CoreV1().Endpoints("kube-system").Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) { //nolint:staticcheck // what Raven makes
		t.Errorf("the Endpoints object is left: %v", err)
	}
}

// waitAddress waits until the cloud gave a Service an address.
func waitAddress(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, "an address", func(ctx context.Context) error {
		s, err := c.Client.CoreV1().Services("kube-system").Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(s.Status.LoadBalancer.Ingress) == 0 {
			err = errors.New("none")
		}
		return err
	})
}

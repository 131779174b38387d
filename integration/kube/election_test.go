//go:build linux

package kube_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"corax/control/controller"
	"corax/control/controller/election"
	"corax/integration/kube/cluster"
)

// failover is how soon after a gateway node's death another one is active: what
// is left of ten seconds is for its peers.
const failover = 9 * time.Second

// poolNode is a node of the pool "site".
func poolNode(i int) cluster.Node {
	n := edgeNode(fmt.Sprintf("e%d", i), "site")
	n.IPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 7, byte(i)})}
	n.PodCIDRs = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 7, byte(i), 0}), 24), netip.MustParsePrefix(fmt.Sprintf("fd07:%d::/64", i))}
	return n
}

// elected is a cluster with a site of four nodes, three of which are candidates.
func elected(t *testing.T, change func(*controller.Config)) (*cluster.Cluster, *site) {
	t.Helper()
	c := domainCluster(t)
	c.AddNode(t, poolNode(1), poolNode(2), poolNode(3), poolNode(4))
	runController(t, c, func(cfg *controller.Config) {
		cfg.Disable = only("domains", "gateways")
		if change != nil {
			change(cfg)
		}
	})
	s := newSite(t, c, "site", "e1", "e2", "e3", "e4")
	// Whoever published first is active.
	cluster.Eventually(t, time.Minute, "the first election", func(context.Context) error {
		g, m := s.now()
		keys := 0
		for _, e := range g.Spec.Endpoints {
			if e.Config["publicKey"] != "" {
				keys++
			}
		}
		if keys != 6 || len(g.Status.Nodes) != 4 || m.active == "" || strings.Contains(m.active, ",") || m.epoch == 0 || len(g.Status.Conditions) == 0 {
			return fmt.Errorf("%d keys, %d nodes, active %q, epoch %d", keys, len(g.Status.Nodes), m.active, m.epoch)
		}
		return nil
	})
	return c, s
}

// leased waits until the active node's Lease is one that an active node writes.
func leased(t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, "the Lease of "+node, func(ctx context.Context) error {
		l, err := c.Client.CoordinationV1().Leases("corax-leases").Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s := l.Spec.LeaseDurationSeconds; s == nil || *s != 6 {
			return fmt.Errorf("duration %v", l.Spec.LeaseDurationSeconds)
		}
		return nil
	})
}

// TestElection lives through what happens to a site, against a real API server.
func TestElection(t *testing.T) {
	c, s := elected(t, nil)
	g, first := s.now()
	if listed := election.Active(g.Spec.Endpoints, "tunnel"); len(listed) != 3 {
		t.Errorf("listed: %v", listed)
	}

	// What Raven's agents and ours read.
	if g.Annotations["corax.io/domain"] != "pool/site" {
		t.Errorf("gateway: %v, nodes %v", g.Annotations, g.Status.Nodes)
	}
	if n := g.Status.Nodes[0]; n.NodeName != "e1" || n.PrivateIP != "192.168.7.1" || !slices.Equal(n.Subnets, []string{"10.7.1.0/24", "fd07:1::/64"}) {
		t.Errorf("node: %+v", n)
	}
	if a := g.Status.ActiveEndpoints; len(a) != 2 || a[0].Config["enable-l7-proxy"] != "true" || a[1].Config["enable-l3-tunnel"] != "true" {
		t.Errorf("active endpoints: %+v", a)
	}
	leased(t, c, first.active)

	// Each in an event of its own, although the same election made both.
	for _, words := range []string{" is an active tunnel endpoint", " is an active proxy endpoint"} {
		cluster.Eventually(t, 10*time.Second, "the event", func(ctx context.Context) error {
			return hasEventNote(ctx, c, "ActiveEndpointElected", "node "+first.active+words)
		})
	}

	cluster.Eventually(t, 10*time.Second, "the keys in status", func(context.Context) error {
		g, _ := s.now()
		for _, e := range g.Status.ActiveEndpoints {
			if e.Config["publicKey"] == "" {
				return fmt.Errorf("%+v", e)
			}
		}
		return nil
	})
	t.Run("idle", func(t *testing.T) { still(t, c, 5*time.Second) })

	t.Run("agent dead on a Ready node", func(t *testing.T) {
		_, was := s.now()
		dead := time.Now()
		s.set(was.active, func(a *agent) { a.frozen = true })
		cluster.Eventually(t, failover, "a failover", func(context.Context) error {
			if _, m := s.now(); m.active == was.active || m.epoch <= was.epoch {
				return fmt.Errorf("active %q, epoch %d", m.active, m.epoch)
			}
			return nil
		})
		_, m := s.now()
		t.Logf("replaced after %s", m.at.Sub(dead))
		s.unbroken(dead)
		cluster.Eventually(t, 10*time.Second, "the event", func(ctx context.Context) error {
			return hasEventNote(ctx, c, "ActiveEndpointLost", "agent dead: Lease lapsed")
		})
		s.set(was.active, func(a *agent) { a.frozen = false })
		leased(t, c, m.active)
	})

	t.Run("an agent that carries nothing says so", func(t *testing.T) {
		_, was := s.now()
		from := time.Now()
		s.set(was.active, func(a *agent) { a.reason = "device down" })
		cluster.Eventually(t, failover, "a failover", func(context.Context) error {
			if _, m := s.now(); m.active == was.active {
				return fmt.Errorf("active %q", m.active)
			}
			return nil
		})
		s.unbroken(from)
		cluster.Eventually(t, 10*time.Second, "the event", func(ctx context.Context) error {
			return hasEventNote(ctx, c, "ActiveEndpointLost", "carries no traffic: device down")
		})
		s.set(was.active, func(a *agent) { a.reason = "" })
	})

	t.Run("cordon hands over", func(t *testing.T) {
		_, was := s.now()
		leased(t, c, was.active)
		from := time.Now()
		c.Cordon(t, was.active, true)
		cluster.Eventually(t, 30*time.Second, "the hand-over", func(context.Context) error {
			if _, m := s.now(); strings.Contains(m.active, was.active) || strings.Contains(m.active, ",") {
				return fmt.Errorf("active %q", m.active)
			}
			return nil
		})
		s.unbroken(from)
		both := slices.ContainsFunc(s.since(from), func(m moment) bool {
			return strings.Contains(m.active, ",") && strings.Contains(m.active, was.active)
		})
		if !both {
			t.Errorf("the old one went before the new one was active: %v", s.since(from))
		}
		c.Cordon(t, was.active, false)
	})

	t.Run("node gone", func(t *testing.T) {
		_, was := s.now()
		from := time.Now()
		s.set(was.active, func(a *agent) { a.frozen = true })
		c.DeleteNode(t, was.active)
		cluster.Eventually(t, failover, "a failover, and the fourth node as a candidate", func(context.Context) error {
			g, m := s.now()
			listed := election.Active(g.Spec.Endpoints, "tunnel")
			if m.active == was.active || slices.Contains(listed, was.active) || len(listed) != 3 || len(g.Status.Nodes) != 3 {
				return fmt.Errorf("active %q, listed %v, %d nodes", m.active, listed, len(g.Status.Nodes))
			}
			return nil
		})
		s.unbroken(from)
		cluster.Eventually(t, 10*time.Second, "the end of its Lease", func(ctx context.Context) error {
			_, err := c.Client.CoordinationV1().Leases("corax-leases").Get(ctx, was.active, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("still there: %w", err)
		})
	})
}

// hasEventNote returns an error unless there is an event that says the words.
func hasEventNote(ctx context.Context, c *cluster.Cluster, reason, words string) error {
	list, err := c.Client.EventsV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		if e := &list.Items[i]; e.Reason == reason && strings.Contains(e.Note, words) {
			return nil
		}
	}
	return fmt.Errorf("%d events, and none says %q", len(list.Items), words)
}

// TestElectionWhileTheAPIServerIsAway shows that a cut is not taken for dead sites:
// neither when the API server is away for all, nor when a whole site is cut off.
func TestElectionWhileTheAPIServerIsAway(t *testing.T) {
	// A leader that cannot renew ends, and judges nothing: this one goes on.
	c, s := elected(t, func(cfg *controller.Config) { cfg.LeaderElect = false })
	s.mu.Lock()
	s.standby = 6 * time.Second // as long as the active one's, to be cut off at once
	s.mu.Unlock()
	g, was := s.now()
	for _, n := range election.Active(g.Spec.Endpoints, "tunnel") {
		leased(t, c, n)
	}

	from := time.Now()
	c.StopAPI(t)
	pause(t.Context(), 15*time.Second) // longer than any Lease
	c.StartAPI(t)
	pause(t.Context(), 12*time.Second) // longer than one that was not renewed
	if got := s.since(from); len(got) != 1 || got[0].active != was.active || got[0].epoch != was.epoch {
		t.Errorf("the API server was away: %v, before %v", got, was)
	}

	for _, n := range []string{"e1", "e2", "e3", "e4"} {
		s.set(n, func(a *agent) { a.frozen = true })
	}
	cluster.Eventually(t, 20*time.Second, "a Gateway without eligible candidates", func(context.Context) error {
		g, _ := s.now()
		for _, cond := range g.Status.Conditions {
			if cond.Type == "Ready" && cond.Reason == election.ReasonNoneEligible {
				return nil
			}
		}
		return fmt.Errorf("conditions %v", g.Status.Conditions)
	})
	if _, m := s.now(); m.active == "" || strings.Contains(m.active, ",") {
		t.Errorf("the site was cut off, and %q is active", m.active)
	}
	s.unbroken(from)
}

// TestElectionOfLeftovers shows that Gateways are taken as yurt-manager leaves
// them, and as persons write them.
func TestElectionOfLeftovers(t *testing.T) {
	c := domainCluster(t)
	admin := gatewaysOf(t, c.Config())
	entry := func(node, kind string, more object) object {
		e := object{"nodeName": node, "type": kind, "port": int64(4500), "underNAT": false}
		for k, v := range more {
			e[k] = v
		}
		return e
	}
	spec := object{
		"nodeSelector": object{"matchLabels": object{gatewayLabel: "old"}},
		"proxyConfig":  object{"Replicas": int64(1), "proxyHTTPPort": "10255"},
		"tunnelConfig": object{"Replicas": int64(1)},
		"exposeType":   "PublicIP",
		"endpoints": []any{
			entry("n1", "tunnel", object{"publicIP": "192.0.2.1", "natType": "Undefined", "config": object{"publicKey": testKey("n1")}}),
			entry("n1", "proxy", object{"somebodyElses": "field"}),
			entry("n2", "tunnel", object{"publicIP": "192.0.2.2", "config": object{"publicKey": testKey("n2")}}),
			entry("n2", "proxy", nil),
		},
	}
	made := admin.create(t, "old", spec)
	want, _, _ := unstructured.NestedMap(made.Object, "spec")
	admin.status(t, "old", object{
		"nodes":           []any{object{"nodeName": "n1", "privateIP": "10.0.0.1", "subnets": []any{"10.8.1.0/24"}}},
		"activeEndpoints": []any{entry("n2", "tunnel", object{"config": object{"enable-l3-tunnel": "true"}}), entry("gone", "proxy", nil)},
	})
	labels := map[string]string{gatewayLabel: "old"}
	c.AddNode(t, cluster.Node{Name: "n1", Labels: labels}, cluster.Node{Name: "n2", Labels: labels})
	runController(t, c, func(cfg *controller.Config) { cfg.Disable = only("gateways") })

	s := newSite(t, c, "old")
	cluster.Eventually(t, 20*time.Second, "the election", func(context.Context) error {
		g, _ := s.now()
		tunnels, proxies := election.Active(g.Status.ActiveEndpoints, "tunnel"), election.Active(g.Status.ActiveEndpoints, "proxy")
		if !slices.Equal(tunnels, []string{"n2"}) || !slices.Equal(proxies, []string{"n1"}) || g.Annotations["corax.io/epoch"] != "1" {
			return fmt.Errorf("active %v, %v; %v", tunnels, proxies, g.Annotations)
		}
		return nil
	})
	got := admin.get(t, "old")
	is, _, _ := unstructured.NestedMap(got.Object, "spec")
	if d := cmp.Diff(want, is); d != "" {
		t.Errorf("a person's spec was changed (-want +got)\n%s", d)
	}
	// The columns show it.
	out, err := c.Kubectl(t, nil, "get", "gateways", "old", "--no-headers")
	if err != nil || !slices.Equal(strings.Fields(string(out))[:5], []string{"old", "n1,n2", "PublicIP", "192.0.2.2", "2"}) {
		t.Errorf("kubectl get gateways: %s (%v)", out, err)
	}
	if _, err := c.Kubectl(t, nil, "wait", "--for=condition=Ready", "gateway/old", "--timeout=10s"); err != nil {
		t.Errorf("kubectl wait: %v", err)
	}
	still(t, c, 3*time.Second)

	if err := admin.Delete(t.Context(), "old", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, 10*time.Second, "the end of it", func(ctx context.Context) error {
		_, err := admin.Get(ctx, "old", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("still there: %w", err)
	})
}

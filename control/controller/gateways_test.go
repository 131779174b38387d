package controller

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/controller/election"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

// summaryOf is what a test looks at.
func summaryOf(g *gateway.Gateway) string {
	return strings.Join([]string{
		"listed", strings.Join(election.Active(g.Spec.Endpoints, v1beta1.TypeTunnel), ","),
		"tunnel", strings.Join(election.Active(g.Status.ActiveEndpoints, v1beta1.TypeTunnel), ","),
		"proxy", strings.Join(election.Active(g.Status.ActiveEndpoints, v1beta1.TypeProxy), ","),
		"epoch", g.Annotations[v1beta1.AnnotationEpoch],
	}, " ")
}

func check(t *testing.T, w *world, name, want string) {
	t.Helper()
	if got := summaryOf(w.get(name)); got != want {
		t.Errorf("%s: %s, want %s", name, got, want)
	}
}

func TestGatewayComesUpAndRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ourGateway("pool", "pool/pool"),
			readyNode("a", "pool", 1), readyNode("b", "pool", 2), readyNode("c", "pool", 3), readyNode("d", "pool", 4), readyNode("x", "other", 5))
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel a proxy a epoch 1")
		if want := []string{"patch pool", "status pool", "patch pool"}; !slices.Equal(w.writes, want) {
			t.Errorf("writes: %v, want %v", w.writes, want)
		}
		g := w.get("pool")
		if len(g.Status.Nodes) != 4 || !slices.Equal(g.Status.Nodes[0].Subnets, []string{"10.1.1.0/24", "fd01:1::/64"}) {
			t.Errorf("status.nodes: %+v", g.Status.Nodes)
		}
		if got := g.Annotations[v1beta1.AnnotationCandidates]; got != "a,b,c" {
			t.Errorf("candidates are noted as %q", got)
		}
		for _, e := range g.Spec.Endpoints {
			if !e.UnderNAT {
				t.Errorf("entry of the edge is not under NAT: %+v", e)
			}
		}
		// The agents publish: who is active is copied, and nobody moves.
		w.publish("pool", "a", "b", "c")
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel a proxy a epoch 1")
		if got := w.get("pool").Status.ActiveEndpoints[0].Config[v1beta1.ConfigPublicKey]; got != testKey {
			t.Errorf("the key is not copied: %q", got)
		}
		// A day of nothing.
		w.writes = nil
		for range 100 {
			time.Sleep(15 * time.Minute)
			if res := w.once("pool"); res.RequeueAfter != 0 || len(w.writes) > 0 {
				t.Fatalf("an idle Gateway: %+v, %v", res, w.writes)
			}
		}
	})
}

// up returns a world in which the agents of a, b and c have published.
func up(t *testing.T, g *gateway.Gateway) *world {
	t.Helper()
	w := newWorld(t, g, readyNode("a", g.Name, 1), readyNode("b", g.Name, 2), readyNode("c", g.Name, 3))
	w.settle(g.Name)
	w.publish(g.Name, "a", "b", "c")
	w.settle(g.Name)
	w.told()
	w.writes = nil
	return w
}

// leases makes the Leases that ask reads.
func (w *world) leases(nodes ...string) {
	w.t.Helper()
	for _, n := range nodes {
		if err := w.api.Create(w.t.Context(), testLease(n, n, time.Now())); err != nil {
			w.t.Fatal(err)
		}
	}
}

// die lets the Lease of one node lapse while others renew, by the second.
func (w *world) die(others ...string) {
	for range 7 {
		time.Sleep(time.Second)
		w.renew(others...)
	}
}

func TestGatewayFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := up(t, ourGateway("pool", "pool/pool"))
		w.leases("a", "b", "c")
		w.r.tracker.Observe(time.Now(), "a", election.ReadLease(testLease("a", "a", time.Now())))
		w.renew("b", "c")
		w.settle("pool")
		if len(w.writes) > 0 {
			t.Fatalf("Leases alone are no reason to write: %v", w.writes)
		}
		w.die("b", "c")
		if res := w.once("pool"); res.RequeueAfter > 0 {
			t.Errorf("a dead gateway node has to wait: %+v", res)
		}
		check(t, w, "pool", "listed a,b,c tunnel b proxy b epoch 2")
		if want := []string{"status pool", "patch pool"}; !slices.Equal(w.writes, want) {
			t.Errorf("writes: %v, want %v", w.writes, want)
		}
		want := []string{
			"Warning ActiveEndpointLost node a is no active tunnel endpoint any more: agent dead: Lease lapsed; active now: b",
			"Warning ActiveEndpointLost node a is no active proxy endpoint any more: agent dead: Lease lapsed; active now: b",
			"Normal ActiveEndpointElected node b is an active tunnel endpoint",
			"Normal ActiveEndpointElected node b is an active proxy endpoint",
		}
		if d := cmp.Diff(want, w.told()); d != "" {
			t.Errorf("events (-want +got)\n%s", d)
		}
		// It comes back: sticky.
		w.renew("a", "b", "c")
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel b proxy b epoch 2")
	})
}

// TestGatewayOfASiteThatIsCutOff: active node and standbys lose the API server at
// once, while other sites do not. The standbys' Leases are the longer ones, and no
// reason to elect somebody who is as far away. When only the active one died, a
// standby that shows itself is elected within the bound.
func TestGatewayOfASiteThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := up(t, ourGateway("pool", "pool/pool"))
		w.leases("a", "b", "c")
		see := func(node string, seconds int) {
			l := election.ReadLease(testLease(node, node, time.Now()))
			l.Duration = time.Duration(seconds) * time.Second
			w.r.tracker.Observe(time.Now(), node, l)
		}
		see("a", 6)
		time.Sleep(1500 * time.Millisecond)
		see("b", 30)
		see("c", 30)
		for range 8 {
			time.Sleep(time.Second)
			w.renew("elsewhere")
			w.once("pool")
		}
		if s := w.r.tracker.Standing("a").State; s != election.Lapsed {
			t.Fatalf("a is %v", s)
		}
		if res := w.once("pool"); res.RequeueAfter != doubtPeriod || len(w.writes) > 0 {
			t.Errorf("%+v, writes %v", res, w.writes)
		}
		check(t, w, "pool", "listed a,b,c tunnel a proxy a epoch 1")
		// It was the node alone.
		see("c", 30)
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel c proxy c epoch 2")
	})
}

func TestGatewayAsksBeforeItFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := up(t, ourGateway("pool", "pool/pool"))
		w.renew("a", "b", "c")
		w.die("b", "c")
		w.hidden.Store(true)
		if _, err := w.r.bring(t.Context(), w.mustHave("pool")); err == nil {
			t.Error("the API server does not answer, and yet somebody was elected")
		}
		w.hidden.Store(false)
		// The Lease was renewed; only the watch has not told yet.
		w.leases("a")
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel a proxy a epoch 1")
	})
}

// mustHave returns a Gateway even while the API server is away.
func (w *world) mustHave(name string) *gateway.Gateway {
	hidden := w.hidden.Load()
	w.hidden.Store(false)
	defer func() { w.hidden.Store(hidden) }()
	g := &gateway.Gateway{}
	if err := w.api.Get(w.t.Context(), client.ObjectKey{Name: name}, g); err != nil {
		w.t.Fatal(err)
	}
	return g
}

func TestGatewayKeepsThePresentOnesWhenAllLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := up(t, ourGateway("pool", "pool/pool"))
		w.leases("a", "b", "c")
		w.renew("a", "b", "c")
		time.Sleep(time.Second)
		w.r.tracker.Observe(time.Now(), "a", election.ReadLease(testLease("a", "a", time.Now())))
		w.die("elsewhere") // the API server is there for others
		for _, n := range []string{"a", "b", "c"} {
			if s := w.r.tracker.Standing(n).State; s == election.Fresh && n != "a" {
				t.Fatalf("%s has not lapsed", n)
			}
		}
		w.settle("pool")
		g := w.get("pool")
		if got := summaryOf(g); got != "listed a,b,c tunnel a proxy a epoch 1" {
			t.Error(got)
		}
		if c := g.Status.Conditions[0]; c.Status != metav1.ConditionFalse || c.Reason != election.ReasonNoneEligible {
			t.Errorf("condition: %+v", c)
		}
		if e := w.told(); len(e) > 0 {
			t.Errorf("events: %v", e)
		}
	})
}

func TestGatewayHandsOverWhenCordoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := up(t, ourGateway("pool", "pool/pool"))
		w.renew("a", "b", "c")
		change(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, func(n *corev1.Node) { n.Spec.Unschedulable = true })
		time.Sleep(statusGap)
		w.renew("a", "b", "c")
		res := w.once("pool")
		check(t, w, "pool", "listed a,b,c tunnel a,b proxy a,b epoch 2")
		if res.RequeueAfter <= 0 || res.RequeueAfter > 3*time.Second {
			t.Errorf("it comes back after %v", res.RequeueAfter)
		}
		time.Sleep(res.RequeueAfter)
		w.renew("a", "b", "c")
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel b proxy b epoch 3")
		got := w.told()
		if want := "Warning ActiveEndpointLost node a is no active tunnel endpoint any more: handed over: cordoned; active now: b"; !slices.Contains(got, want) {
			t.Errorf("events %q lack %q", got, want)
		}
	})
}

// TestGatewayLeavesItToThePinned: a node that was labelled into the domain before the
// one that is pinned is listed, and active. With room for two it must go all the same.
func TestGatewayLeavesItToThePinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := ourGateway("pool", "pool/pool")
		w := newWorld(t, g, readyNode("a", "pool", 1))
		w.settle("pool")
		check(t, w, "pool", "listed a tunnel a proxy a epoch 1")
		if err := w.api.Create(t.Context(), readyNode("b", "pool", 2, v1beta1.LabelGatewayNode)); err != nil {
			t.Fatal(err)
		}
		change(w, g, func(g *gateway.Gateway) {
			g.Spec.ProxyConfig.Replicas, g.Spec.TunnelConfig.Replicas = 2, 2
			g.Annotations[v1beta1.AnnotationReplicas] = "proxy=2,tunnel=2"
		})
		w.publish("pool", "a")
		w.once("pool")
		check(t, w, "pool", "listed a,b tunnel a proxy a epoch 1") // b carries nothing yet
		w.publish("pool", "b")
		w.leases("a", "b")
		for range 10 { // until b has settled
			w.renew("a", "b")
			w.once("pool")
			time.Sleep(time.Second)
		}
		w.settle("pool")
		check(t, w, "pool", "listed b tunnel b proxy b epoch 3")
	})
}

func TestGatewayOfAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "hand"}}
		g.Spec.Endpoints = []v1beta1.Endpoint{{NodeName: "b", Type: v1beta1.TypeTunnel, PublicIP: "192.0.2.1"}, {NodeName: "z", Type: v1beta1.TypeTunnel}}
		w := newWorld(t, g, readyNode("a", "hand", 1), readyNode("b", "hand", 2, v1beta1.LabelGatewayNode))
		w.settle("hand")
		got := w.get("hand")
		if d := cmp.Diff(g.Spec, got.Spec); d != "" {
			t.Errorf("spec was changed (-want +got)\n%s", d)
		}
		if _, noted := got.Annotations[v1beta1.AnnotationCandidates]; noted {
			t.Error("candidates are noted")
		}
		if s := summaryOf(got); s != "listed b,z tunnel b proxy  epoch 1" || len(got.Status.Nodes) != 2 {
			t.Errorf("%s, %+v", s, got.Status.Nodes)
		}
	})
}

func TestGatewayStatusIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := up(t, ourGateway("pool", "pool/pool"))
		w.renew("a", "b", "c")
		time.Sleep(statusGap)
		var at []time.Time
		end := time.Now().Add(20 * time.Second)
		for i := 0; time.Now().Before(end); i++ {
			change(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, func(n *corev1.Node) {
				n.Status.Addresses[0].Address = readyNode("c", "pool", 100+i).Status.Addresses[0].Address
			})
			before := len(w.writes)
			res := w.once("pool")
			w.renew("a", "b", "c")
			if len(w.writes) > before {
				at = append(at, time.Now())
			} else if res.RequeueAfter <= 0 {
				t.Fatalf("change %d is forgotten: %+v", i, w.get("pool").Status.Nodes)
			}
			time.Sleep(100 * time.Millisecond)
		}
		for i := 1; i < len(at); i++ {
			if gap := at[i].Sub(at[i-1]); gap < statusGap {
				t.Errorf("two writes %v apart", gap)
			}
		}
		if len(at) < 9 || len(at) > 11 {
			t.Errorf("%d writes in 20 s", len(at))
		}
		w.settle("pool")
	})
}

func TestGatewayFailoverIsNotCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := up(t, ourGateway("pool", "pool/pool"))
		down := func(name string) {
			change(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, func(n *corev1.Node) {
				n.Status.Conditions[0].Status = corev1.ConditionUnknown
			})
		}
		w.once("pool")
		w.writes = nil
		change(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, func(n *corev1.Node) { n.Spec.PodCIDRs = nil })
		time.Sleep(statusGap)
		w.once("pool")
		if len(w.writes) != 1 {
			t.Fatalf("writes: %v", w.writes)
		}
		time.Sleep(time.Second / 2)
		down("a")
		w.once("pool")
		check(t, w, "pool", "listed a,b,c tunnel b proxy b epoch 2")
		// Whoever flaps does not make us write without end.
		time.Sleep(time.Second / 2)
		down("b")
		if res := w.once("pool"); res.RequeueAfter != 3*time.Second/2 {
			t.Errorf("the next one has to wait %v", res.RequeueAfter)
		}
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel c proxy c epoch 3")
	})
}

// settled is how long a hand-over takes at most.
const settled = 20 * time.Second

// oldCache is a client whose cache still has an old Gateway.
type oldCache struct {
	client.Client
	old *gateway.Gateway
}

func (c *oldCache) Get(ctx context.Context, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if g, ok := o.(*gateway.Gateway); ok {
		c.old.DeepCopyInto(g)
		return nil
	}
	return c.Client.Get(ctx, k, o, opts...)
}

func TestGatewayWithAnOldCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := ourGateway("pool", "pool/pool")
		w := newWorld(t, g, readyNode("a", "pool", 1), readyNode("b", "pool", 2))
		olds := []*gateway.Gateway{w.mustHave("pool")}
		note := func() { olds = append(olds, w.mustHave("pool")) }
		w.settle("pool")
		w.publish("pool", "a", "b")
		w.settle("pool")
		note()
		change(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, func(n *corev1.Node) { n.Spec.Unschedulable = true })
		time.Sleep(statusGap)
		w.once("pool")
		note()
		w.settle("pool")
		want := w.get("pool")
		for i, old := range olds {
			w.r.client = &oldCache{w.api, old}
			w.once("pool")
			time.Sleep(settled) // of whom the old version calls active
			if res := w.once("pool"); res.RequeueAfter != staleRetry {
				t.Errorf("version %d (%s): comes back after %v", i, summaryOf(old), res.RequeueAfter)
			}
			if d := cmp.Diff(want, w.get("pool")); d != "" {
				t.Errorf("version %d: an old cache changed the Gateway (-want +got)\n%s", i, d)
			}
		}
	})
}

func TestGatewayThatCannotBeListedStillFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := up(t, ourGateway("pool", "pool/pool"))
		w.refuse = true // any change of spec
		change(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, func(n *corev1.Node) {
			n.Labels[v1beta1.LabelGateway] = "other"
			n.Status.Conditions[0].Status = corev1.ConditionUnknown
		})
		if _, err := w.r.Reconcile(t.Context(), request("pool")); err == nil {
			t.Error("nobody hears that the list is refused")
		}
		check(t, w, "pool", "listed a,b,c tunnel b proxy b epoch 2")
	})
}

func TestNewGatewayWaitsForItsNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := ourGateway("pool", "pool/pool")
		g.CreationTimestamp = metav1.Now()
		w := newWorld(t, g)
		time.Sleep(time.Second)
		if res := w.once("pool"); res.RequeueAfter != emptyGrace-time.Second || len(w.writes) > 0 {
			t.Errorf("%+v, %v", res, w.writes)
		}
		if err := w.api.Create(t.Context(), readyNode("a", "pool", 1)); err != nil {
			t.Fatal(err)
		}
		w.settle("pool")
		check(t, w, "pool", "listed a tunnel a proxy a epoch 1")

		g = ourGateway("empty", "pool/empty")
		g.CreationTimestamp = metav1.Now()
		w = newWorld(t, g)
		w.settle("empty")
		if c := w.get("empty").Status.Conditions; len(c) != 1 || c[0].Reason != election.ReasonNoEndpoints {
			t.Errorf("an empty one says %v", c)
		}
	})
}

func TestGatewaySwitches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := up(t, ourGateway("pool", "pool/pool"))
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: DefaultNamespace, Name: exposure.SettingsName}}
		cm.Data = map[string]string{"enable-l7-proxy": "true", "enable-l3-tunnel": "false"}
		if err := w.api.Create(t.Context(), cm); err != nil {
			t.Fatal(err)
		}
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel  proxy a epoch 2")
		change(w, cm, func(cm *corev1.ConfigMap) { cm.Data["enable-l3-tunnel"] = "true" })
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel a proxy a epoch 3")
	})
}

func TestGatewayLowersReplicasWithItsCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := ourGateway("pool", "pool/pool")
		w := up(t, g)
		change(w, g, func(g *gateway.Gateway) {
			g.Spec.ProxyConfig.Replicas = 3
			g.Annotations[v1beta1.AnnotationReplicas] = "proxy=3,tunnel=1"
		})
		w.settle("pool")
		check(t, w, "pool", "listed a,b,c tunnel a proxy a,b,c epoch 2")
		if err := w.api.Delete(t.Context(), readyNode("c", "pool", 3)); err != nil {
			t.Fatal(err)
		}
		w.settle("pool")
		check(t, w, "pool", "listed a,b tunnel a proxy a,b epoch 3")
		if n := w.get("pool").Spec.ProxyConfig.Replicas; n != 2 {
			t.Errorf("proxyConfig.Replicas is %d: the API server refuses more than there are entries", n)
		}
		// What a person wants stays, and with it the entry that it needs.
		change(w, g, func(g *gateway.Gateway) { g.Annotations[v1beta1.AnnotationReplicas] = "proxy=1,tunnel=1" })
		if err := w.api.Delete(t.Context(), readyNode("b", "pool", 2)); err != nil {
			t.Fatal(err)
		}
		w.settle("pool")
		got := w.get("pool")
		if n := got.Spec.ProxyConfig.Replicas; n != 2 || len(election.Active(got.Spec.Endpoints, v1beta1.TypeProxy)) != 2 {
			t.Errorf("Replicas %d, %v", n, got.Spec.Endpoints)
		}
	})
}

func TestGatewayIsLeftToAnotherController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := ourGateway("pool", "pool/pool")
		now := metav1.Now()
		g.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: foreignManager, APIVersion: v1beta1.APIVersion, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1("{}"), Operation: metav1.ManagedFieldsOperationUpdate, Time: &now}}
		w := newWorld(t, g, readyNode("a", "pool", 1))
		w.r.guard = newGuard(w.api, events.NewFakeRecorder(10), Config{Log: w.r.log})
		if res := w.once("pool"); res.RequeueAfter <= 0 || len(w.writes) > 0 {
			t.Errorf("%+v, %v", res, w.writes)
		}
	})
}

// TestGatewayKilledAtEachWrite kills the controller at each write of a life with an
// election, a failover and a hand-over. The Gateway comes out the same each time.
func TestGatewayKilledAtEachWrite(t *testing.T) {
	life := func(t *testing.T, killAt int, after bool) (*gateway.Gateway, int) {
		w := newWorld(t, ourGateway("pool", "pool/pool"), readyNode("a", "pool", 1), readyNode("b", "pool", 2), readyNode("c", "pool", 3))
		w.killAt, w.killAfter = killAt, after
		w.settle("pool")
		w.publish("pool", "a", "b", "c")
		w.settle("pool")
		w.leases("b", "c")
		change(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, func(n *corev1.Node) {
			n.Status.Conditions[0].Status = corev1.ConditionUnknown
		})
		w.settle("pool")
		change(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}}, func(n *corev1.Node) { n.Spec.Unschedulable = true })
		w.settle("pool")
		return w.get("pool"), len(w.writes)
	}
	var want *gateway.Gateway
	var writes int
	synctest.Test(t, func(t *testing.T) { want, writes = life(t, 0, false) })
	if got := summaryOf(want); got != "listed a,b,c tunnel c proxy c epoch 4" {
		t.Fatal(got)
	}
	for n := 1; n <= writes; n++ {
		for _, after := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				got, _ := life(t, n, after)
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("killed at write %d (after it: %v): (-want +got)\n%s", n, after, d)
				}
			})
		}
	}
}

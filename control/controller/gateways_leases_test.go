package controller

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/api/v1beta1"
	"corax/control/controller/election"
)

// testLease is the Lease of an active node.
func testLease(node, holder string, renewed time.Time) *coordinationv1.Lease {
	seconds, at := int32(6), metav1.NewMicroTime(renewed)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: DefaultLeaseNamespace, Name: node},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &at},
	}
}

// testQueue is a queue that a test reads.
func testQueue(t *testing.T) queueInterface {
	t.Helper()
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	t.Cleanup(q.ShutDown)
	return q
}

// asked returns the Gateways in the queue, sorted, and empties it.
func asked(q queueInterface) []string {
	var out []string
	for q.Len() > 0 {
		r, _ := q.Get()
		q.Done(r)
		q.Forget(r)
		out = append(out, r.Name)
	}
	slices.Sort(out)
	return out
}

// follow runs the watch of Leases until the test ends.
func (w *world) follow() queueInterface {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	w.r.queue.q = q
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.r.watchLeases(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		q.ShutDown()
	})
	return q
}

func TestLapsedLeaseAsksForItsGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, readyNode("a", "pool", 1), readyNode("b", "other", 2))
		q := w.follow()
		w.renew("a", "b")
		for range 4 {
			time.Sleep(time.Second)
			w.renew("b")
		}
		if got := asked(q); got != nil {
			t.Fatalf("asked for %v before anything lapsed", got)
		}
		time.Sleep(1900 * time.Millisecond)
		synctest.Wait()
		if got := asked(q); got != nil {
			t.Errorf("asked for %v after 5.9 s", got)
		}
		time.Sleep(700 * time.Millisecond)
		synctest.Wait()
		if got := asked(q); !slices.Equal(got, []string{"pool"}) {
			t.Errorf("asked for %v after 6.6 s", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := asked(q); !slices.Equal(got, []string{"other"}) {
			t.Errorf("then asked for %v", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := asked(q); got != nil {
			t.Errorf("asked for %v again and again", got)
		}
	})
}

func TestNothingLapsesWhileTheAPIServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, readyNode("a", "pool", 1))
		q := w.follow()
		w.renew("a")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.hidden.Store(true)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		w.hidden.Store(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := asked(q); got != nil {
			t.Errorf("asked for %v: the agents had no time to renew", got)
		}
		if s := w.r.tracker.Standing("a").State; s != election.Fresh {
			t.Errorf("standing %v", s)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := asked(q); !slices.Equal(got, []string{"pool"}) {
			t.Errorf("asked for %v: a is dead", got)
		}
	})
}

func TestLeaseEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, readyNode("a", "pool", 1))
		q, h, ctx := testQueue(t), w.r.leaseEvents(), t.Context()
		update := func(l *coordinationv1.Lease) []string {
			h.UpdateFunc(ctx, event.TypedUpdateEvent[*coordinationv1.Lease]{ObjectOld: l, ObjectNew: l}, q)
			return asked(q)
		}
		h.CreateFunc(ctx, event.TypedCreateEvent[*coordinationv1.Lease]{Object: testLease("a", "a", time.Now())}, q)
		if got := asked(q); !slices.Equal(got, []string{"pool"}) {
			t.Errorf("a new Lease asks for %v", got)
		}
		for range 100 {
			time.Sleep(2 * time.Second)
			if got := update(testLease("a", "a", time.Now())); got != nil {
				t.Fatalf("a renewal asks for %v", got)
			}
		}
		if got := update(testLease("a", "", time.Now())); !slices.Equal(got, []string{"pool"}) {
			t.Errorf("a release asks for %v", got)
		}
		h.DeleteFunc(ctx, event.TypedDeleteEvent[*coordinationv1.Lease]{Object: testLease("a", "", time.Now())}, q)
		if got := asked(q); !slices.Equal(got, []string{"pool"}) {
			t.Errorf("a deletion asks for %v", got)
		}
		if got := update(testLease("nobody", "nobody", time.Now())); got != nil {
			t.Errorf("the Lease of no node asks for %v", got)
		}
	})
}

func TestNodeEvents(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*corev1.Node)
		want   []string
	}{
		{"nothing", func(*corev1.Node) {}, nil},
		{"a heartbeat", func(n *corev1.Node) {
			n.Status.Conditions[0].LastHeartbeatTime = metav1.Now()
			n.Annotations = map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
		}, nil},
		{"Ready", func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionFalse }, []string{"pool"}},
		{"cordon", func(n *corev1.Node) { n.Spec.Unschedulable = true }, []string{"pool"}},
		{"address", func(n *corev1.Node) { n.Status.Addresses[0].Address = "10.9.9.9" }, []string{"pool"}},
		{"podCIDRs", func(n *corev1.Node) { n.Spec.PodCIDRs = n.Spec.PodCIDRs[:1] }, []string{"pool"}},
		{"pinned", func(n *corev1.Node) { n.Labels[v1beta1.LabelGatewayNode] = "true" }, []string{"pool"}},
		{"zone", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "z" }, []string{"pool"}},
		{"moved", func(n *corev1.Node) { n.Labels[v1beta1.LabelGateway] = "other" }, []string{"other", "pool"}},
		{"left", func(n *corev1.Node) { delete(n.Labels, v1beta1.LabelGateway) }, []string{"pool"}},
		{"Calico came", func(n *corev1.Node) {
			n.Annotations = map[string]string{"projectcalico.org/IPv4Address": "x"}
		}, []string{"pool"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			q, h := testQueue(t), w.r.nodeEvents()
			was := readyNode("a", "pool", 1)
			is := was.DeepCopy()
			tt.change(is)
			h.UpdateFunc(t.Context(), event.TypedUpdateEvent[*corev1.Node]{ObjectOld: was, ObjectNew: is}, q)
			if got := asked(q); !slices.Equal(got, tt.want) {
				t.Errorf("asks for %v, want %v", got, tt.want)
			}
		})
	}
}

func TestConfigEvents(t *testing.T) {
	w := newWorld(t, ourGateway("one", "pool/one"), ourGateway("two", "pool/two"))
	q, h := testQueue(t), w.r.configEvents()
	cm := func(tunnel, acl string) *corev1.ConfigMap {
		return &corev1.ConfigMap{Data: map[string]string{"enable-l3-tunnel": tunnel, "enable-l7-proxy": "true", "acl-entry": acl}}
	}
	update := func(a, b *corev1.ConfigMap) []string {
		h.UpdateFunc(t.Context(), event.TypedUpdateEvent[*corev1.ConfigMap]{ObjectOld: a, ObjectNew: b}, q)
		return asked(q)
	}
	if got := update(cm("true", ""), cm("true", "10.0.0.0/8")); got != nil {
		t.Errorf("another allow list asks for %v", got)
	}
	if got := update(cm("true", ""), cm("false", "")); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("a switch asks for %v", got)
	}
}

package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
	"corax/control/kube/gateway"
)

// faulty is an API server that fails at one write, before or after it took effect.
type faulty struct {
	at     int // number of the write that fails; 0: none
	done   bool
	mu     sync.Mutex // for writes, which are made several at once
	writes int
	listed func(client.ObjectList) // may change what is read
}

var errLost = errors.New("the connection was lost")

func (f *faulty) write(do func() error) error {
	f.mu.Lock()
	f.writes++
	fails := f.writes == f.at
	f.mu.Unlock()
	if !fails {
		return do()
	}
	if f.done {
		if err := do(); err != nil {
			return err
		}
	}
	return errLost
}

func (f *faulty) funcs() interceptor.Funcs {
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return f.write(func() error { return c.Create(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return f.write(func() error { return c.Patch(ctx, o, p, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return f.write(func() error { return c.Delete(ctx, o, opts...) })
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			err := c.List(ctx, list, opts...)
			if f.listed != nil {
				f.listed(list)
			}
			return err
		},
		Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
			return errors.New("an Update overwrites what others wrote")
		},
	}
}

// newDomains makes a reconciler over objects.
func newDomains(t *testing.T, f *faulty, pools map[string]domain.Pool, objects ...client.Object) *domains {
	t.Helper()
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithReturnManagedFields().
		WithInterceptorFuncs(f.funcs()).Build()
	return &domains{
		client: client.WithFieldOwner(c, name), events: events.NewFakeRecorder(100), log: slog.New(slog.DiscardHandler),
		config: domain.Config{Label: DefaultDomainLabel, ProxyReplicas: 1, TunnelReplicas: 2},
		pools:  func(context.Context) (map[string]domain.Pool, error) { return pools, nil },
		told:   map[string]string{},
	}
}

func testNode(name string, labels ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		n.Labels[labels[i]] = labels[i+1]
	}
	return n
}

// picture is the domain of each Gateway, and the Gateway of each node.
func picture(t *testing.T, c client.Client) map[string]string {
	t.Helper()
	got := map[string]string{}
	var gateways gateway.GatewayList
	var nodes corev1.NodeList
	if err := errors.Join(c.List(t.Context(), &gateways), c.List(t.Context(), &nodes)); err != nil {
		t.Fatal(err)
	}
	for _, g := range gateways.Items {
		got[g.Name] = g.Annotations[v1beta1.AnnotationDomain]
	}
	for _, n := range nodes.Items {
		got["node "+n.Name] = n.Labels[v1beta1.LabelGateway]
	}
	return got
}

// TestDomainsFaults lets each write fail in turn, once before and once after it
// took effect. Tried again, all comes right; and then nothing is written.
func TestDomainsFaults(t *testing.T) {
	for _, done := range []bool{false, true} {
		for at := 1; ; at++ {
			f := &faulty{done: done}
			pools := map[string]domain.Pool{"p": {Edge: true}}
			r := newDomains(t, f, pools, testNode("c"), testNode("e1", DefaultDomainLabel, "p"), testNode("e2", DefaultDomainLabel, "p"))
			reconcileUntilDone(t, r)

			pools["p"] = domain.Pool{Edge: true, Apart: true}
			f.writes, f.at = 0, at
			_, err := r.Reconcile(t.Context(), reconcile.Request{})
			if err == nil {
				if f.writes >= at {
					t.Fatalf("write %d failed, and nobody said so", at)
				}
				break // there are fewer writes
			}
			if !errors.Is(err, errLost) {
				t.Fatalf("write %d: %v", at, err)
			}
			for node, label := range picture(t, r.client) {
				if _, ok := picture(t, r.client)[label]; strings.HasPrefix(node, "node ") && !ok {
					t.Errorf("write %d failed: %s has Gateway %q, which is not there", at, node, label)
				}
			}
			f.at = 0
			reconcileUntilDone(t, r)
			want := map[string]string{
				"cloud": "cloud", "solo-e1": "node/e1", "solo-e2": "node/e2",
				"node c": "cloud", "node e1": "solo-e1", "node e2": "solo-e2",
			}
			if diff := cmp.Diff(want, picture(t, r.client)); diff != "" {
				t.Errorf("write %d failed (-want +got):\n%s", at, diff)
			}
			f.writes = 0
			if _, err := r.Reconcile(t.Context(), reconcile.Request{}); err != nil || f.writes > 0 {
				t.Errorf("write %d failed: afterwards %d writes, %v", at, f.writes, err)
			}
		}
	}
}

// reconcileUntilDone tries again as the work queue does.
func reconcileUntilDone(t *testing.T, r *domains) {
	t.Helper()
	var err error
	for range 5 {
		if _, err = r.Reconcile(t.Context(), reconcile.Request{}); err == nil {
			return
		}
	}
	t.Fatalf("five times: %v", err)
}

// TestDomainsReplicas checks that a change is a small patch, which keeps what our
// types do not know, and that one made on an old view is refused.
func TestDomainsReplicas(t *testing.T) {
	f := &faulty{}
	r := newDomains(t, f, nil, testNode("c"))
	reconcileUntilDone(t, r)
	var g gateway.Gateway
	get := func() {
		t.Helper()
		if err := r.client.Get(t.Context(), client.ObjectKey{Name: "cloud"}, &g); err != nil {
			t.Fatal(err)
		}
	}
	get()
	if g.Spec.TunnelConfig.Replicas != 1 {
		t.Fatalf("%d replicas without endpoints", g.Spec.TunnelConfig.Replicas)
	}
	patch := client.RawPatch("application/merge-patch+json", []byte(
		`{"spec": {"tunnelConfig": {"future": 1}, "endpoints": [{"nodeName": "c", "type": "tunnel"}, {"nodeName": "d", "type": "tunnel"}]}}`))
	if err := r.client.Patch(t.Context(), &g, patch); err != nil {
		t.Fatal(err)
	}
	f.writes = 0
	reconcileUntilDone(t, r)
	get()
	if g.Spec.TunnelConfig.Replicas != 2 || len(g.Spec.Endpoints) != 2 || f.writes != 1 {
		t.Errorf("%+v after %d writes", g.Spec, f.writes)
	}
	if a := g.Annotations[v1beta1.AnnotationReplicas]; a != "proxy=1,tunnel=2" {
		t.Errorf("annotation %q", a)
	}
}

// TestDomainsGuard checks that a Gateway that somebody else looks after is neither
// changed nor deleted, and that the reconciler comes back to it.
func TestDomainsGuard(t *testing.T) {
	foreign := gateway.FromPlain(v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{
		Name:        "old",
		Labels:      map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy},
		Annotations: map[string]string{v1beta1.AnnotationDomain: "pool/gone"},
	}})
	f := &faulty{}
	r := newDomains(t, f, nil, testNode("c"), foreign)
	now := time.Now()
	r.guard = newGuard(&crdReader{}, events.NewFakeRecorder(10), Config{Log: slog.New(slog.DiscardHandler)})
	r.guard.now = func() time.Time { return now }
	wrote := now.Add(-foreignFor + 10*time.Second)
	f.listed = func(list client.ObjectList) {
		if l, ok := list.(*gateway.GatewayList); ok {
			for i := range l.Items {
				if l.Items[i].Name == "old" {
					l.Items[i].ManagedFields = written(foreignManager, wrote).ManagedFields
				}
			}
		}
	}
	result, err := r.Reconcile(t.Context(), reconcile.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if after := result.RequeueAfter; after <= 0 || after > 10*time.Second {
		t.Errorf("comes back after %v", after)
	}
	want := map[string]string{"cloud": "cloud", "old": "pool/gone", "node c": "cloud"}
	if diff := cmp.Diff(want, picture(t, r.client)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	now = now.Add(10 * time.Second)
	reconcileUntilDone(t, r)
	delete(want, "old")
	if diff := cmp.Diff(want, picture(t, r.client)); diff != "" {
		t.Errorf("a day later (-want +got):\n%s", diff)
	}
}

// TestDomainsTells checks that an event is raised once.
func TestDomainsTells(t *testing.T) {
	r := newDomains(t, &faulty{}, nil, testNode("c", v1beta1.LabelGateway, "not-yet"))
	recorder := r.events.(*events.FakeRecorder)
	for range 3 {
		reconcileUntilDone(t, r)
	}
	if n := len(recorder.Events); n != 1 {
		t.Errorf("%d events", n)
	}
}

// discoverer answers which versions have NodePools.
type discoverer struct {
	versions []string
	err      error
	asked    int
}

func (d *discoverer) resources(version string) (*metav1.APIResourceList, error) {
	d.asked++
	if d.err != nil {
		return nil, d.err
	}
	for _, v := range d.versions {
		if version == "apps.openyurt.io/"+v {
			return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "yurtappsets"}, {Name: "nodepools"}}}, nil
		}
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{}, version)
}

// poolCache lists NodePools, and notes which informers were removed.
type poolCache struct {
	cache.Cache
	items   []unstructured.Unstructured
	removed []string
}

func (c *poolCache) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*unstructured.UnstructuredList).Items = c.items
	return nil
}

func (c *poolCache) RemoveInformer(_ context.Context, o client.Object) error {
	c.removed = append(c.removed, o.GetObjectKind().GroupVersionKind().Version)
	return nil
}

func TestNodePools(t *testing.T) {
	d, c := &discoverer{}, &poolCache{}
	now := time.Unix(0, 0)
	var watched []string
	p := &nodePools{
		resources: d.resources, cache: c, log: slog.New(slog.DiscardHandler), now: func() time.Time { return now },
		watch: func(o *unstructured.Unstructured) error {
			watched = append(watched, o.GroupVersionKind().Version)
			return nil
		},
	}
	pool := func(name string, spec map[string]any) unstructured.Unstructured {
		return unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": name}, "spec": spec}}
	}
	c.items = []unstructured.Unstructured{
		pool("a", map[string]any{"type": "Edge", "interConnectivity": false}),
		pool("b", map[string]any{"type": "Edge", "interConnectivity": true}),
		pool("c", map[string]any{"type": "Edge"}),
		pool("d", map[string]any{"type": "Cloud", "interConnectivity": "no"}),
		pool("e", nil),
	}
	all := map[string]domain.Pool{"a": {Edge: true, Apart: true}, "b": {Edge: true}, "c": {Edge: true}, "d": {}, "e": {}}
	for i, step := range []struct {
		name     string
		after    time.Duration
		versions []string
		err      error
		want     map[string]domain.Pool
		fails    bool
		asks     bool
		watched  string
	}{
		{"unknown", 0, nil, errors.New("down"), nil, true, true, ""},
		{"none", 0, nil, nil, nil, false, true, ""},
		{"not asked again so soon", 59 * time.Second, []string{"v1beta2"}, nil, nil, false, false, ""},
		{"the older appears", time.Second, []string{"v1beta1"}, nil, all, false, true, "[v1beta1]"},
		{"an API server that is down removes nothing", time.Minute, nil, errors.New("down"), all, false, true, "[v1beta1]"},
		{"the newer too", time.Minute, []string{"v1beta1", "v1beta2"}, nil, all, false, true, "[v1beta1 v1beta2]"},
		{"still", time.Minute, []string{"v1beta1", "v1beta2"}, nil, all, false, true, "[v1beta1 v1beta2]"},
		{"gone", time.Minute, nil, nil, nil, false, true, "[v1beta1 v1beta2]"},
	} {
		now = now.Add(step.after)
		d.versions, d.err, d.asked = step.versions, step.err, 0
		got, err := p.Pools(t.Context())
		if (err != nil) != step.fails {
			t.Errorf("%d %s: %v", i, step.name, err)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%d %s (-want +got):\n%s", i, step.name, diff)
		}
		if (d.asked > 0) != step.asks {
			t.Errorf("%d %s: asked %d times", i, step.name, d.asked)
		}
		if step.watched != "" && fmt.Sprint(watched) != step.watched {
			t.Errorf("%d %s: watched %v", i, step.name, watched)
		}
	}
	if fmt.Sprint(c.removed) != "[v1beta1 v1beta2]" {
		t.Errorf("removed %v", c.removed)
	}
}

package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/api/v1beta1"
	"corax/control/controller/election"
	"corax/control/kube/gateway"
)

// testKey is a public key.
const testKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

var errKilled = errors.New("killed")

// world is an API server that is not one, and the electorate before it. It must be
// used inside a bubble, whose clock all of it follows.
type world struct {
	t      *testing.T
	api    client.WithWatch
	r      *electorate
	events *events.FakeRecorder

	writes []string
	// killAt is the write, from 1, at which the controller dies: before the API
	// server has it, or, with killAfter, before it hears of it. Zero: never.
	killAt    int
	killAfter bool
	// refuse makes the API server find every JSON patch invalid.
	refuse bool
	// hidden makes reads fail, as when the API server is away.
	hidden atomic.Bool
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	s, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t}
	w.api = fake.NewClientBuilder().WithScheme(s).
		WithObjects(objects...).WithStatusSubresource(&gateway.Gateway{}).WithReturnManagedFields().
		WithIndex(&corev1.Node{}, nodesByGateway, gatewayOf).
		WithIndex(&gateway.Gateway{}, gatewaysByKey, keysOf).
		WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if w.hidden.Load() {
					return errKilled
				}
				return c.Get(ctx, k, o, opts...)
			},
			List: func(ctx context.Context, c client.WithWatch, o client.ObjectList, opts ...client.ListOption) error {
				if w.hidden.Load() {
					return errKilled
				}
				return c.List(ctx, o, opts...)
			},
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				return w.write("patch "+o.GetName(), func() error {
					if w.refuse && p.Type() == types.JSONPatchType {
						return apierrors.NewInvalid(gateway.GroupVersionKind().GroupKind(), o.GetName(), nil)
					}
					err := c.Patch(ctx, o, p, opts...)
					if s := apierrors.APIStatus(nil); err != nil && !errors.As(err, &s) && p.Type() == types.JSONPatchType {
						// A test that failed, as the real one answers it.
						return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "patch", schema.GroupResource{}, o.GetName(), err.Error(), 0, false)
					}
					return err
				})
			},
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
				return w.write(sub+" "+o.GetName(), func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
			},
		}).Build()
	w.restart()
	return w
}

// write counts, and kills.
func (w *world) write(what string, do func() error) error {
	w.writes = append(w.writes, what)
	n := len(w.writes)
	if n == w.killAt && !w.killAfter {
		return errKilled
	}
	if err := do(); err != nil {
		return err
	}
	if n == w.killAt {
		return errKilled
	}
	return nil
}

// restart is a new controller, which remembers nothing.
func (w *world) restart() {
	w.events = events.NewFakeRecorder(1000)
	w.r = &electorate{
		client: w.api, api: w.api, events: w.events, log: slog.New(slog.DiscardHandler),
		cfg: Config{Namespace: DefaultNamespace, LeaseNamespace: DefaultLeaseNamespace},
	}
	w.r.blocks.setReady()
}

// settle reconciles a Gateway until the controller has nothing more to do; a
// controller that dies is replaced.
func (w *world) settle(name string) {
	w.t.Helper()
	for range 100 {
		before := len(w.writes)
		res, err := w.r.Reconcile(w.t.Context(), request(name))
		switch {
		case errors.Is(err, errKilled):
			w.restart()
		case err != nil:
			w.t.Fatalf("reconcile: %v", err)
		case res.RequeueAfter > 0:
			time.Sleep(res.RequeueAfter)
		case len(w.writes) == before:
			return
		}
	}
	w.t.Fatalf("no rest after %d writes", len(w.writes))
}

// once reconciles once.
func (w *world) once(name string) reconcile.Result {
	w.t.Helper()
	res, err := w.r.Reconcile(w.t.Context(), request(name))
	if err != nil {
		w.t.Fatalf("reconcile: %v", err)
	}
	return res
}

// get returns a Gateway without what no two runs have in common.
func (w *world) get(name string) *gateway.Gateway {
	w.t.Helper()
	g := &gateway.Gateway{}
	if err := w.api.Get(context.WithoutCancel(w.t.Context()), client.ObjectKey{Name: name}, g); err != nil {
		w.t.Fatal(err)
	}
	g.ResourceVersion, g.ManagedFields = "", nil
	for i := range g.Status.Conditions {
		g.Status.Conditions[i].LastTransitionTime = metav1.Time{}
	}
	return g
}

// told returns the events until now.
func (w *world) told() []string {
	var out []string
	for {
		select {
		case e := <-w.events.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

// change changes an object, as others do.
func change[T client.Object](w *world, o T, do func(T)) {
	w.t.Helper()
	if err := w.api.Get(w.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		w.t.Fatal(err)
	}
	do(o)
	writes := w.writes
	status := o.DeepCopyObject().(client.Object)
	if err := w.api.Update(w.t.Context(), o); err != nil {
		w.t.Fatal(err)
	}
	if n, ok := status.(*corev1.Node); ok {
		n.ResourceVersion = o.GetResourceVersion()
		if err := w.api.Status().Update(w.t.Context(), n); err != nil {
			w.t.Fatal(err)
		}
	}
	w.writes = writes
}

// publish fills the entries of a node, as its agent does.
func (w *world) publish(name string, nodes ...string) {
	w.t.Helper()
	change(w, &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name}}, func(g *gateway.Gateway) {
		for i := range g.Spec.Endpoints {
			for _, n := range nodes {
				if e := &g.Spec.Endpoints[i]; e.NodeName == n {
					e.Config = map[string]string{v1beta1.ConfigPublicKey: testKey}
				}
			}
		}
	})
}

// renew is a renewal that the controller sees.
func (w *world) renew(nodes ...string) {
	for _, n := range nodes {
		w.r.tracker.Observe(time.Now(), n, election.Lease{Renewed: time.Now(), Duration: 6 * time.Second})
	}
}

// ourGateway is one as the domains reconciler makes it.
func ourGateway(name, id string) *gateway.Gateway {
	g := &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy},
		Annotations: map[string]string{v1beta1.AnnotationDomain: id, v1beta1.AnnotationReplicas: "proxy=1,tunnel=1"},
	}}
	g.Spec.ProxyConfig = &v1beta1.ProxyConfiguration{Replicas: 1, ProxyHTTPSPort: "10250"}
	g.Spec.TunnelConfig = &v1beta1.TunnelConfiguration{Replicas: 1}
	return g
}

// readyNode is the i-th node of a Gateway.
func readyNode(name, of string, i int, labels ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1beta1.LabelGateway: of}}}
	for _, l := range labels {
		n.Labels[l] = "true"
	}
	n.Spec.PodCIDRs = []string{fmt.Sprintf("10.%d.%d.0/24", i/250+1, i%250), fmt.Sprintf("fd01:%x::/64", i)}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.%d.%d", i/250, i%250+1)}}
	return n
}

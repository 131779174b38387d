package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

// errBenchKilled is what a request of a killed controller gets.
var errBenchKilled = errors.New("killed")

// bench is a cluster in memory whose nth write kills the controller, after it took
// effect.
type bench struct {
	client.WithWatch
	t      *testing.T
	now    time.Time
	writes int
	kill   int // the write that kills; 0: none
	dead   bool
	made   int
	events *events.FakeRecorder
}

func newBench(t *testing.T, kill int, objects ...client.Object) *bench {
	t.Helper()
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, kill: kill, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), events: events.NewFakeRecorder(1000)}
	under := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&gateway.Gateway{}, &corev1.Service{}).Build()
	b.WithWatch = interceptor.NewClient(under, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			o.SetCreationTimestamp(metav1.Time{Time: b.now})
			b.made++
			o.SetUID(types.UID(fmt.Sprintf("uid-%d", b.made)))
			return b.write(func() error { return c.Create(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return b.write(func() error {
				err := c.Patch(ctx, o, p, opts...)
				if err != nil && p.Type() == types.JSONPatchType && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown {
					return apierrors.NewInvalid(gateway.GroupVersionKind().GroupKind(), o.GetName(), nil) // as the API server
				}
				return err
			})
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return b.write(func() error { return c.Delete(ctx, o, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return b.write(func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
	})
	return b
}

func (b *bench) write(f func() error) error {
	if b.dead {
		return errBenchKilled
	}
	b.writes++
	if b.writes != b.kill {
		return f()
	}
	b.dead = true
	if err := f(); err != nil {
		b.t.Errorf("write %d: %v", b.writes, err)
	}
	return errBenchKilled
}

// person does what a person or the cloud does: it is never killed or counted.
func (b *bench) person(f func(client.Client) error) {
	b.t.Helper()
	kill, writes := b.kill, b.writes
	b.kill, b.dead = 0, false
	if err := f(b.WithWatch); err != nil {
		b.t.Fatal(err)
	}
	b.kill, b.writes = kill, writes
}

// run reconciles, each time with a new reconciler, until nothing is written. Being
// killed ends a reconcile, and the next controller begins anew.
func (b *bench) run(with func() reconcile.Reconciler, requests ...string) {
	b.t.Helper()
	for range 30 {
		before := b.writes
		for _, r := range requests {
			_, err := with().Reconcile(b.t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: r}})
			if b.dead {
				b.dead = false
				before = -1
				break
			}
			if err != nil {
				b.t.Fatalf("%s: %v", r, err)
			}
		}
		if b.writes == before {
			return
		}
	}
	b.t.Fatal("it never ends")
}

func (b *bench) expose() reconcile.Reconciler {
	return &expose{
		client: b, api: b, events: b.events, log: slog.New(slog.DiscardHandler),
		namespace: "kube-system", clusterID: "c1", now: func() time.Time { return b.now },
	}
}

func (b *bench) names() reconcile.Reconciler {
	return &hostNames{
		client: b, file: b, events: b.events, log: slog.New(slog.DiscardHandler),
		cfg: Config{Namespace: "kube-system", DomainLabel: DefaultDomainLabel},
	}
}

func (b *bench) settings() reconcile.Reconciler {
	return &settings{client: b, events: b.events, log: slog.New(slog.DiscardHandler), namespace: "kube-system"}
}

func (b *bench) get(o client.Object, namespace, name string) bool {
	b.t.Helper()
	err := b.Get(b.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, o)
	if client.IgnoreNotFound(err) != nil {
		b.t.Fatal(err)
	}
	return err == nil
}

// snapshot returns all that the reconcilers write, for comparison.
func (b *bench) snapshot() map[string]client.Object {
	b.t.Helper()
	all := map[string]client.Object{}
	var gateways gateway.GatewayList
	var services corev1.ServiceList
	var list discoveryv1.EndpointSliceList
	var maps corev1.ConfigMapList
	for _, l := range []client.ObjectList{&gateways, &services, &list, &maps} {
		if err := b.List(b.t.Context(), l); err != nil {
			b.t.Fatal(err)
		}
	}
	add := func(kind string, o client.Object) {
		o.SetResourceVersion("")
		o.SetUID("")
		o.SetOwnerReferences(nil)
		all[kind+"/"+o.GetName()] = o
	}
	for i := range gateways.Items {
		add("gateway", &gateways.Items[i])
	}
	for i := range services.Items {
		add("service", &services.Items[i])
	}
	for i := range list.Items {
		add("slice", &list.Items[i])
	}
	for i := range maps.Items {
		add("configmap", &maps.Items[i])
	}
	return all
}

func node(name, gatewayName, ip string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1beta1.LabelGateway: gatewayName}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: ip}, {Type: corev1.NodeHostName, Address: name},
		}},
	}
}

func exposedGateway(nodes ...string) *gateway.Gateway {
	g := &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "cloud", Annotations: map[string]string{"theirs": "1"}}}
	g.Spec.ExposeType = v1beta1.ExposeLoadBalancer
	g.Spec.ProxyConfig = &v1beta1.ProxyConfiguration{Replicas: 2, ProxyHTTPSPort: "9100"}
	for i, n := range nodes {
		e := v1beta1.Endpoint{NodeName: n, Type: v1beta1.TypeTunnel, Port: 4500 + i, Config: map[string]string{"publicKey": "key of " + n}}
		g.Spec.Endpoints = append(g.Spec.Endpoints, e, v1beta1.Endpoint{NodeName: n, Type: v1beta1.TypeProxy, Port: 10262})
	}
	g.Status.ActiveEndpoints = gateway.CopyEndpoints(g.Spec.Endpoints)
	return g
}

func (b *bench) patchGateway(f func(*gateway.Gateway)) {
	b.t.Helper()
	b.person(func(c client.Client) error {
		g := &gateway.Gateway{}
		if err := c.Get(b.t.Context(), client.ObjectKey{Name: "cloud"}, g); err != nil {
			return err
		}
		was := g.DeepCopy()
		f(g)
		if err := c.Status().Patch(b.t.Context(), g.DeepCopy(), client.MergeFrom(was)); err != nil {
			return err
		}
		return c.Patch(b.t.Context(), g, client.MergeFrom(was))
	})
}

// giveAddresses is the cloud: every Service without an address gets one.
func (b *bench) giveAddresses() {
	b.t.Helper()
	b.person(func(c client.Client) error {
		var list corev1.ServiceList
		if err := c.List(b.t.Context(), &list); err != nil {
			return err
		}
		for i := range list.Items {
			s := &list.Items[i]
			if s.Spec.Type != corev1.ServiceTypeLoadBalancer || len(s.Status.LoadBalancer.Ingress) > 0 {
				continue
			}
			was := s.DeepCopy()
			node := s.Labels[v1beta1.LabelEndpointsName]
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113." + node[len(node)-1:]}}
			if err := c.Status().Patch(b.t.Context(), s, client.MergeFrom(was)); err != nil {
				return err
			}
		}
		return nil
	})
}

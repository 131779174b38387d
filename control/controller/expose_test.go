package controller

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

// story takes a Gateway through its life. It returns the state after each part.
func story(t *testing.T, kill int) (*bench, []map[string]client.Object) {
	t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "raven-cfg"}, Data: map[string]string{"theirs": "1"}}
	b := newBench(t, kill, exposedGateway("node-1", "node-2"), cm,
		node("node-1", "cloud", "10.0.0.1"), node("node-2", "cloud", "10.0.0.2"), node("edge-1", "edge", "192.168.0.10"))
	var states []map[string]client.Object
	run := func() {
		b.run(b.expose, "cloud")
		b.run(b.names, "")
		b.run(b.settings, "")
		states = append(states, b.snapshot())
	}
	run()
	b.now = b.now.Add(time.Minute)
	b.giveAddresses()
	run()
	b.person(func(c client.Client) error {
		cm.Data = map[string]string{"acl-entry": "100.64.0.0/10", "acl-id": "acl-1", "theirs": "1"}
		return c.Patch(t.Context(), cm.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"data":{"acl-entry":"100.64.0.0/10","acl-id":"acl-1"}}`)))
	})
	run()
	b.patchGateway(func(g *gateway.Gateway) { g.Status.ActiveEndpoints = g.Status.ActiveEndpoints[:2] })
	run()
	b.patchGateway(func(g *gateway.Gateway) { g.Spec.ExposeType = "" })
	run()
	b.patchGateway(func(g *gateway.Gateway) { g.Spec.ExposeType = v1beta1.ExposeLoadBalancer })
	run()
	b.giveAddresses()
	run()
	b.person(func(c client.Client) error {
		return c.Delete(t.Context(), &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "cloud"}})
	})
	run()
	return b, states
}

func TestExposureStory(t *testing.T) {
	b, states := story(t, 0)
	count := func(i int, kind string) int {
		n := 0
		for key := range states[i] {
			if strings.HasPrefix(key, kind+"/") {
				n++
			}
		}
		return n
	}
	for i, want := range []struct {
		what                     string
		services, slices, gws    int
		finalizer                bool
		node1, node2, balancerIP string
	}{
		{"made", 3, 3, 1, true, "", "", ""},
		{"published", 3, 3, 1, true, "203.0.113.1:4500", "203.0.113.2:4501", "203.0.113.2"},
		{"with a list", 3, 3, 1, true, "203.0.113.1:4500", "203.0.113.2:4501", "203.0.113.2"},
		{"one hub", 2, 2, 1, true, "203.0.113.1:4500", "", "203.0.113.1"},
		{"not exposed", 0, 0, 1, false, "", "", ""},
		{"again", 2, 2, 1, true, "", "", ""},
		{"published again", 2, 2, 1, true, "203.0.113.1:4500", "", "203.0.113.1"},
		{"deleted", 0, 0, 0, false, "", "", ""},
	} {
		if count(i, "service") != want.services || count(i, "slice") != want.slices || count(i, "gateway") != want.gws {
			t.Errorf("%s: %v", want.what, slices.Sorted(maps.Keys(states[i])))
		}
		if cm := states[i]["configmap/raven-cfg"].(*corev1.ConfigMap); cm.Data["loadbalancer-ip"] != want.balancerIP || cm.Data["theirs"] != "1" {
			t.Errorf("%s: raven-cfg has %v", want.what, cm.Data)
		}
		if want.gws == 0 {
			continue
		}
		g := states[i]["gateway/cloud"].(*gateway.Gateway)
		if slices.Contains(g.Finalizers, v1beta1.FinalizerExposure) != want.finalizer || g.Annotations["theirs"] != "1" {
			t.Errorf("%s: %+v", want.what, g.ObjectMeta)
		}
		for k, addr := range []string{want.node1, want.node1, want.node2, want.node2} {
			e := g.Spec.Endpoints[k]
			got := ""
			if e.PublicIP != "" {
				got = fmt.Sprintf("%s:%d", e.PublicIP, e.PublicPort)
			}
			if got != addr || e.Type == v1beta1.TypeTunnel && e.Config["publicKey"] != "key of "+e.NodeName {
				t.Errorf("%s: entry %d is %+v, want %s", want.what, k, e, addr)
			}
		}
	}
	if b.writes > 60 {
		t.Errorf("%d writes", b.writes)
	}
}

// TestExposureKilled kills the controller at each of its writes, and wants the
// same states as without.
func TestExposureKilled(t *testing.T) {
	whole, want := story(t, 0)
	ignore := []cmp.Option{
		cmpopts.EquateEmpty(),
		cmpopts.IgnoreFields(metav1.Condition{}, "LastTransitionTime"),
		cmpopts.IgnoreFields(metav1.ObjectMeta{}, "ManagedFields"),
	}
	for kill := 1; kill <= whole.writes; kill++ {
		t.Run(fmt.Sprintf("write %d", kill), func(t *testing.T) {
			_, got := story(t, kill)
			if diff := cmp.Diff(want, got, ignore...); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestReleaseLooksTwice: a Service that the cache does not have yet is not left
// behind when its Gateway goes.
func TestReleaseLooksTwice(t *testing.T) {
	b := newBench(t, 0, exposedGateway("node-1"), node("node-1", "cloud", "10.0.0.1"))
	b.run(b.expose, "cloud")
	b.person(func(c client.Client) error {
		return c.Delete(t.Context(), &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "cloud"}})
	})
	r := b.expose().(*expose)
	r.client = interceptor.NewClient(b, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, ok := list.(*corev1.ServiceList); ok {
				return nil // as before the Service was made
			}
			return c.List(ctx, list, opts...)
		},
	})
	res, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "cloud"}})
	if err != nil || res.RequeueAfter == 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if g := (&gateway.Gateway{}); !b.get(g, "", "cloud") {
		t.Fatal("the Gateway went while its Service is there")
	}
	b.run(b.expose, "cloud")
	if n := len(b.snapshot()); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// TestOrphan: a Service whose Gateway was removed by force is released.
func TestOrphan(t *testing.T) {
	b := newBench(t, 0, exposedGateway("node-1"), node("node-1", "cloud", "10.0.0.1"))
	b.run(b.expose, "cloud")
	b.patchGateway(func(g *gateway.Gateway) { g.Finalizers = nil })
	b.person(func(c client.Client) error {
		return c.Delete(t.Context(), &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "cloud"}})
	})
	b.run(b.expose, "cloud")
	if left := b.snapshot(); len(left) != 0 {
		t.Errorf("left: %v", slices.Collect(maps.Keys(left)))
	}
}

// TestStaleGateway: a write on what somebody changed in between fails and is
// decided anew.
func TestStaleGateway(t *testing.T) {
	b := newBench(t, 0, exposedGateway("node-1"), node("node-1", "cloud", "10.0.0.1"))
	b.run(b.expose, "cloud")
	b.giveAddresses()
	old := &gateway.Gateway{}
	b.get(old, "", "cloud")
	b.patchGateway(func(g *gateway.Gateway) {
		g.Spec.Endpoints = slices.Insert(g.Spec.Endpoints, 0, v1beta1.Endpoint{NodeName: "node-0", Type: v1beta1.TypeTunnel})
	})
	r := b.expose().(*expose)
	r.client = interceptor.NewClient(b, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if g, ok := o.(*gateway.Gateway); ok {
				old.DeepCopyInto(g)
				return nil
			}
			return c.Get(ctx, key, o, opts...)
		},
	})
	res, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "cloud"}})
	if err != nil || res.RequeueAfter != staleRetry {
		t.Errorf("%+v, %v", res, err)
	}
	g := &gateway.Gateway{}
	if b.get(g, "", "cloud"); g.Spec.Endpoints[0].PublicIP != "" || len(g.Spec.Endpoints) != 3 {
		t.Fatalf("the wrong entry was written: %+v", g.Spec.Endpoints)
	}
	b.run(b.expose, "cloud")
	if b.get(g, "", "cloud"); g.Spec.Endpoints[0].PublicIP != "" || g.Spec.Endpoints[1].PublicIP != "203.0.113.1" {
		t.Errorf("%+v", g.Spec.Endpoints)
	}
}

// TestRefusedEntries: what the API server never takes is tried with growing pauses.
func TestRefusedEntries(t *testing.T) {
	b := newBench(t, 0, exposedGateway("node-1"), node("node-1", "cloud", "10.0.0.1"))
	b.run(b.expose, "cloud")
	b.giveAddresses()
	r := b.expose().(*expose)
	r.client = interceptor.NewClient(b, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if p.Type() == types.JSONPatchType {
				return apierrors.NewInvalid(gateway.GroupVersionKind().GroupKind(), o.GetName(), nil)
			}
			return c.Patch(ctx, o, p, opts...)
		},
	})
	_, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "cloud"}})
	if !apierrors.IsInvalid(err) {
		t.Errorf("%v", err)
	}
}

// TestAdoptionDropsEndpoints: the Endpoints object that Raven's controller made
// would be mirrored to slices beside ours.
func TestAdoptionDropsEndpoints(t *testing.T) {
	const name = "x-raven-tunnel-svc-cloud-0a1b2c3d"
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name, Labels: map[string]string{
			v1beta1.LabelGateway: "cloud", v1beta1.LabelGatewayType: "tunnel", v1beta1.LabelEndpointsName: "node-1",
		}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Protocol: "UDP", Port: 4500}}},
	}
	ends := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name}}
	ends.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Endpoints"))
	dropped := false
	b := newBench(t, 0, exposedGateway("node-1"), node("node-1", "cloud", "10.0.0.1"), s)
	r := b.expose().(*expose)
	r.client = interceptor.NewClient(b, interceptor.Funcs{
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			if o.GetObjectKind().GroupVersionKind() == ends.GroupVersionKind() && o.GetName() == name {
				dropped = true
				return apierrors.NewNotFound(corev1.Resource("endpoints"), name)
			}
			return c.Delete(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if _, ok := o.(*corev1.Service); ok && !dropped {
				t.Error("the Service was adopted first")
			}
			return c.Patch(ctx, o, p, opts...)
		},
	})
	b.run(func() reconcile.Reconciler { return r }, "cloud")
	got := &corev1.Service{}
	if b.get(got, "kube-system", name); !dropped || got.Labels[v1beta1.LabelManagedBy] != v1beta1.ManagedBy {
		t.Errorf("dropped %v, %+v", dropped, got.Labels)
	}
}

func TestExposureConditionsAndEvents(t *testing.T) {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "raven-cfg"}, Data: map[string]string{"acl-entry": "10.0.0.0/8,x"}}
	g := exposedGateway("node-1")
	g.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "True", Reason: "r"}}
	b := newBench(t, 0, g, cm, node("node-1", "cloud", "10.0.0.1"))
	b.run(b.expose, "cloud")
	r := b.settings()
	b.run(func() reconcile.Reconciler { return r }, "", "")
	got := &gateway.Gateway{}
	b.get(got, "", "cloud")
	kinds := map[string]string{}
	for _, c := range got.Status.Conditions {
		kinds[c.Type] = string(c.Status) + " " + c.Reason
	}
	want := map[string]string{"Ready": "True r", exposure.ConditionExposed: "False AllowListUnknown", exposure.ConditionAllowList: "False Refused"}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Error(diff)
	}
	close(b.events.Events)
	var told []string
	for e := range b.events.Events {
		told = append(told, e)
	}
	text := strings.Join(told, "\n")
	for _, s := range []string{"Warning AllowListRefused", "Warning ExposedAllowListUnknown", "Warning BadSetting", "entry 2"} {
		if !strings.Contains(text, s) {
			t.Errorf("no event says %q: %s", s, text)
		}
	}
	if len(told) != 3 {
		t.Errorf("%d events: %s", len(told), text)
	}
}

// TestExposureKeepsOff: nothing is written on what is another controller's, but
// what is ours is released with its Gateway.
func TestExposureKeepsOff(t *testing.T) {
	b := newBench(t, 0, exposedGateway("node-1"), node("node-1", "cloud", "10.0.0.1"))
	off := func() *guard {
		return &guard{
			events: b.events, log: slog.New(slog.DiscardHandler), now: func() time.Time { return b.now },
			read: true, next: b.now.Add(time.Hour), crd: "the CRD is somebody else's", objects: map[object]finding{},
		}
	}
	guarded := func() reconcile.Reconciler {
		r := b.expose().(*expose)
		r.guard = off()
		return r
	}
	b.run(guarded, "cloud")
	n := b.names().(*hostNames)
	n.guard = off()
	res, err := n.Reconcile(t.Context(), reconcile.Request{})
	if b.writes != 0 || err != nil || res.RequeueAfter == 0 {
		t.Fatalf("%d writes, %+v, %v", b.writes, res, err)
	}
	b.run(b.expose, "cloud")
	b.person(func(c client.Client) error {
		return c.Delete(t.Context(), &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "cloud"}})
	})
	b.run(guarded, "cloud")
	if left := b.snapshot(); len(left) != 0 {
		t.Errorf("left: %v", slices.Collect(maps.Keys(left)))
	}
}

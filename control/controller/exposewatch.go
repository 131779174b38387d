package controller

import (
	"context"
	"errors"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

// exposeDelay gathers what happens at nearly the same time.
const exposeDelay = 100 * time.Millisecond

func addExpose(m manager.Manager, cfg Config, g *guard) error {
	r := &expose{
		client: m.GetClient(), api: m.GetAPIReader(), guard: g, events: m.GetEventRecorder(name), log: cfg.Log,
		namespace: cfg.Namespace, clusterID: cfg.ClusterID, now: time.Now,
	}
	w, err := newWatching(m, "expose", r, nil)
	if err != nil {
		return err
	}
	watch := func(o client.Object, names func(context.Context, client.Object) []string, changed func(event.UpdateEvent) bool) error {
		return w.in(m.GetCache(), o, lead(exposeDelay, names), nil, changed)
	}
	return errors.Join(
		watch(&gateway.Gateway{}, itself, exposureChanged),
		watch(&corev1.Service{}, r.ofService, anyChange),
		watch(&discoveryv1.EndpointSlice{}, ofSlice, anyChange),
		watch(&corev1.Node{}, r.ofNode, addressesChanged),
		watch(&corev1.ConfigMap{}, r.ofSettings, anyChange),
	)
}

func itself(_ context.Context, o client.Object) []string { return []string{o.GetName()} }

// ofService returns the Gateway that a Service exposes.
func (r *expose) ofService(_ context.Context, o client.Object) []string {
	if s, ok := o.(*corev1.Service); ok && s.Namespace == r.namespace {
		if name := exposure.Concerns(s); name != "" {
			return []string{name}
		}
	}
	return nil
}

func ofSlice(_ context.Context, o client.Object) []string {
	labels := o.GetLabels()
	if labels[discoveryv1.LabelManagedBy] != v1beta1.ManagedBy || labels[v1beta1.LabelGateway] == "" {
		return nil
	}
	return []string{labels[v1beta1.LabelGateway]}
}

// ofNode returns the node's Gateway if that is exposed.
func (r *expose) ofNode(ctx context.Context, o client.Object) []string {
	label := o.GetLabels()[v1beta1.LabelGateway]
	g := &gateway.Gateway{}
	if label == "" || r.client.Get(ctx, client.ObjectKey{Name: label}, g, client.UnsafeDisableDeepCopy) != nil {
		return nil
	}
	if p := g.Plain(); !p.Exposed() {
		return nil
	}
	return []string{label}
}

// ofSettings returns all exposed Gateways.
func (r *expose) ofSettings(ctx context.Context, o client.Object) []string {
	if o.GetName() != exposure.SettingsName || o.GetNamespace() != r.namespace {
		return nil
	}
	var list gateway.GatewayList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Warn("Gateways cannot be listed", "err", err)
		return nil
	}
	var names []string
	for i := range list.Items {
		if p := list.Items[i].Plain(); p.Exposed() {
			names = append(names, p.Metadata.Name)
		}
	}
	return names
}

func anyChange(e event.UpdateEvent) bool {
	return e.ObjectOld.GetResourceVersion() != e.ObjectNew.GetResourceVersion()
}

// exposureChanged tells what matters here from other changes of a Gateway.
func exposureChanged(e event.UpdateEvent) bool {
	was, ok1 := e.ObjectOld.(*gateway.Gateway)
	is, ok2 := e.ObjectNew.(*gateway.Gateway)
	return !ok1 || !ok2 || was.Generation != is.Generation ||
		!was.DeletionTimestamp.Equal(is.DeletionTimestamp) ||
		len(was.Finalizers) != len(is.Finalizers) ||
		!equality.Semantic.DeepEqual(was.Status.ActiveEndpoints, is.Status.ActiveEndpoints) ||
		!equality.Semantic.DeepEqual(was.Status.Conditions, is.Status.Conditions)
}

// addressesChanged tells changes of a node's addresses and labels from its
// heartbeats.
func addressesChanged(e event.UpdateEvent) bool {
	was, ok1 := e.ObjectOld.(*corev1.Node)
	is, ok2 := e.ObjectNew.(*corev1.Node)
	return !ok1 || !ok2 || !maps.Equal(was.Labels, is.Labels) ||
		!equality.Semantic.DeepEqual(was.Status.Addresses, is.Status.Addresses)
}

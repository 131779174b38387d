package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

// expose makes Services for the hubs of a Gateway, and writes their addresses into
// its endpoints.
type expose struct {
	client    client.Client // reads from the cache
	api       client.Reader // not the cache
	guard     *guard
	events    events.EventRecorder
	log       *slog.Logger
	namespace string
	clusterID string
	now       func() time.Time
}

// Reconcile brings the exposure of one Gateway up to date, also of one that is
// gone.
func (r *expose) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	in, gone, err := r.read(ctx, req.Name)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("expose: %w", err)
	}
	res := exposure.For(in)
	w := &exposer{expose: r, g: in.Gateway, gone: gone, res: &res}
	err = w.write(ctx)
	if apierrors.IsConflict(err) || errors.Is(err, errStale) {
		return reconcile.Result{RequeueAfter: staleRetry}, nil // the cache is behind
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("expose: %w", err)
	}
	return reconcile.Result{RequeueAfter: sooner(res.Again, w.again)}, nil
}

// read collects from the cache what the exposure follows from.
func (r *expose) read(ctx context.Context, name string) (in exposure.Input, gone bool, err error) {
	in = exposure.Input{Namespace: r.namespace, ClusterID: r.clusterID, Now: r.now(), Node: r.nodes(ctx)}
	in.Gateway = &gateway.Gateway{}
	if err := r.client.Get(ctx, client.ObjectKey{Name: name}, in.Gateway); apierrors.IsNotFound(err) {
		// What is left of it is released as if it were being deleted.
		in.Gateway = &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name, DeletionTimestamp: &metav1.Time{Time: in.Now}}}
		gone = true
	} else if err != nil {
		return in, false, err
	}
	if in.Settings, err = readSettings(ctx, r.client, r.namespace); err != nil {
		return in, false, err
	}
	var services corev1.ServiceList
	if err := r.client.List(ctx, &services, client.InNamespace(r.namespace), client.UnsafeDisableDeepCopy); err != nil {
		return in, false, err
	}
	in.Services = services.Items
	var list discoveryv1.EndpointSliceList
	err = r.client.List(ctx, &list, client.InNamespace(r.namespace), client.UnsafeDisableDeepCopy,
		client.MatchingLabels{discoveryv1.LabelManagedBy: v1beta1.ManagedBy})
	in.Slices = list.Items
	return in, gone, err
}

// nodes looks up nodes in the cache.
func (r *expose) nodes(ctx context.Context) func(string) (exposure.Node, bool) {
	return func(name string) (exposure.Node, bool) {
		n := &corev1.Node{}
		if err := r.client.Get(ctx, client.ObjectKey{Name: name}, n, client.UnsafeDisableDeepCopy); err != nil {
			return exposure.Node{}, false
		}
		return exposedNode(n), true
	}
}

// exposedNode reads the addresses of a node.
func exposedNode(n *corev1.Node) exposure.Node {
	e := exposure.Node{Name: n.Name, Addrs: addresses(n, corev1.NodeInternalIP)}
	if external := addresses(n, corev1.NodeExternalIP); len(external) > 0 {
		e.External = external[0]
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeExternalDNS && e.ExternalName == "" && v1beta1.CheckHost(a.Address) == nil {
			e.ExternalName = a.Address
		}
	}
	return e
}

// addresses returns the usable addresses of one type, in the node's order.
func addresses(n *corev1.Node, kind corev1.NodeAddressType) []netip.Addr {
	var list []netip.Addr
	for _, a := range n.Status.Addresses {
		if a.Type != kind {
			continue
		}
		if ip, err := v1beta1.ParseAddr(a.Address); err == nil && !slices.Contains(list, ip) {
			list = append(list, ip)
		}
	}
	return list
}

// readSettings reads raven-cfg.
func readSettings(ctx context.Context, c client.Reader, namespace string) (exposure.Settings, error) {
	cm := &corev1.ConfigMap{}
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: exposure.SettingsName}, cm)
	switch {
	case apierrors.IsNotFound(err):
		return exposure.ParseSettings(nil), nil
	case err != nil:
		return exposure.Settings{}, fmt.Errorf("read %s: %w", exposure.SettingsName, err)
	}
	return exposure.ParseSettings(cm), nil
}

package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/controller/names"
	"corax/control/kube/gateway"
)

// namesDelay gathers what happens at nearly the same time: with thousands of nodes
// the hosts file is large, and most changes come in crowds.
const namesDelay = time.Second

// hostNames keeps the hosts file, the Service of the proxy's fronts and the port
// map. Everything hangs together, so all events lead to the same request.
type hostNames struct {
	client client.Client
	file   client.Reader // of the hosts file
	guard  *guard
	events events.EventRecorder
	log    *slog.Logger
	cfg    Config

	told map[names.Problem]bool // what was said; one goroutine uses it
}

func addNames(m manager.Manager, cfg Config, g *guard) error {
	hosts, err := newConfigMapCache(m, cfg.Namespace, names.ConfigMapName)
	if err != nil {
		return err
	}
	r := &hostNames{
		client: m.GetClient(), file: hosts, guard: g, events: m.GetEventRecorder(name), log: cfg.Log, cfg: cfg,
	}
	w, err := newWatching(m, "names", r, all(namesDelay))
	if err != nil {
		return err
	}
	return errors.Join(
		w.objects(&corev1.Node{}, nil, addressesChanged),
		w.objects(&gateway.Gateway{}, nil, namesChanged),
		w.objects(&corev1.Service{}, r.named(names.ServiceName, names.ConnectName), anyChange),
		w.objects(&corev1.ConfigMap{}, r.named(exposure.SettingsName), anyChange),
		w.in(hosts, &corev1.ConfigMap{}, w.handler, nil, anyChange),
		w.objects(&discoveryv1.EndpointSlice{}, func(o client.Object) bool {
			of := o.GetLabels()[discoveryv1.LabelServiceName]
			return of == names.ServiceName || of == names.ConnectName
		}, anyChange),
	)
}

func (r *hostNames) named(list ...string) func(client.Object) bool {
	return func(o client.Object) bool {
		for _, n := range list {
			if o.GetName() == n {
				return o.GetNamespace() == r.cfg.Namespace
			}
		}
		return false
	}
}

// namesChanged tells what matters here from other changes of a Gateway.
func namesChanged(e event.UpdateEvent) bool {
	was, ok1 := e.ObjectOld.(*gateway.Gateway)
	is, ok2 := e.ObjectNew.(*gateway.Gateway)
	ports := func(g *gateway.Gateway) string { return g.Annotations[v1beta1.AnnotationProxyPorts] }
	return !ok1 || !ok2 || ports(was) != ports(is) || was.Generation != is.Generation ||
		!was.DeletionTimestamp.Equal(is.DeletionTimestamp) ||
		!equality.Semantic.DeepEqual(was.Status.ActiveEndpoints, is.Status.ActiveEndpoints)
}

// namesView is what one reconcile saw, and decided.
type namesView struct {
	*hostNames
	gateways map[string]*gateway.Gateway
	nodes    []names.Node
	plan     names.Plan
	service  *corev1.Service // nil: there is none
	slices   []discoveryv1.EndpointSlice
	connect  fronted // HTTP CONNECT
	problems []names.Problem
	again    time.Duration
}

// Reconcile brings all of it up to date.
func (r *hostNames) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	v, err := r.view(ctx)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("names: %w", err)
	}
	err = v.write(ctx)
	v.tell()
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: staleRetry}, nil // the cache is behind
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("names: %w", err)
	}
	return reconcile.Result{RequeueAfter: v.again}, nil
}

// view reads everything from the cache, and decides. Nothing that it read may be
// changed.
func (r *hostNames) view(ctx context.Context) (*namesView, error) {
	v := &namesView{hostNames: r, gateways: map[string]*gateway.Gateway{}}
	s, err := readSettings(ctx, r.client, r.cfg.Namespace)
	if err != nil {
		return nil, err
	}
	var gateways gateway.GatewayList
	if err := r.client.List(ctx, &gateways, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	plain := make(map[string]*v1beta1.Gateway, len(gateways.Items))
	for i := range gateways.Items {
		g := &gateways.Items[i]
		p := g.Plain()
		v.gateways[g.Name], plain[g.Name] = g, &p
	}
	var nodes corev1.NodeList
	if err := r.client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	places := names.Places{
		DomainLabel: r.cfg.DomainLabel, CloudDomains: r.cfg.CloudDomains,
		Gateway: func(name string) *v1beta1.Gateway { return plain[name] },
	}
	internal := make(map[string][]netip.Addr, len(nodes.Items))
	for i := range nodes.Items {
		n := &nodes.Items[i]
		internal[n.Name] = addresses(n, corev1.NodeInternalIP)
		v.nodes = append(v.nodes, namedNode(n, places.Edge(n.Labels)))
	}
	v.plan = names.Decide(gateways.Items, s, func(node string) []netip.Addr { return internal[node] })
	own, err := v.readService(ctx, names.ServiceName)
	if err != nil {
		return nil, err
	}
	v.service, v.slices = own.service, own.slices
	v.connect, err = v.readService(ctx, names.ConnectName)
	return v, err
}

// fronted is a Service in front of the fronts.
type fronted struct {
	service *corev1.Service             // nil: there is none
	slices  []discoveryv1.EndpointSlice // that are ours
}

func (v *namesView) readService(ctx context.Context, name string) (f fronted, err error) {
	s := &corev1.Service{}
	err = v.client.Get(ctx, client.ObjectKey{Namespace: v.cfg.Namespace, Name: name}, s)
	switch {
	case err == nil:
		f.service = s
	case !apierrors.IsNotFound(err):
		return f, err
	}
	var list discoveryv1.EndpointSliceList
	err = v.client.List(ctx, &list, client.InNamespace(v.cfg.Namespace), client.UnsafeDisableDeepCopy,
		client.MatchingLabels{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: v1beta1.ManagedBy})
	f.slices = list.Items
	return f, err
}

// namedNode reads what the names need of a node.
func namedNode(n *corev1.Node, edge bool) names.Node {
	node := names.Node{Name: n.Name, Edge: edge}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		if list := addresses(n, kind); len(list) > 0 {
			node.Addr = list[0]
			break
		}
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeHostName && node.Hostname == "" {
			node.Hostname = a.Address
		}
	}
	return node
}

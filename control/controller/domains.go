package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/controller/domain"
	"corax/control/kube/gateway"
)

// domainsDelay gathers what happens at nearly the same time.
const domainsDelay = 200 * time.Millisecond

// domains makes the Gateways of the domains and labels their nodes. Everything is
// decided at once, so all events lead to the same request.
type domains struct {
	client client.Client
	events events.EventRecorder
	guard  *guard
	log    *slog.Logger
	config domain.Config
	pools  func(context.Context) (map[string]domain.Pool, error)

	told map[string]string // what events said of nodes; one goroutine uses it
}

func addDomains(m manager.Manager, cfg Config, g *guard) error {
	asks, err := discovery.NewDiscoveryClientForConfigAndClient(m.GetConfig(), m.GetHTTPClient())
	if err != nil {
		return err
	}
	pools := &nodePools{resources: asks.ServerResourcesForGroupVersion, cache: m.GetCache(), log: cfg.Log, now: time.Now}
	r := &domains{
		client: m.GetClient(), events: m.GetEventRecorder(name), guard: g, log: cfg.Log,
		config: domain.Config{
			Label: cfg.DomainLabel, Cloud: cfg.CloudDomains, ExposeCloud: cfg.ExposeCloud,
			ProxyReplicas: cfg.ProxyReplicas, TunnelReplicas: cfg.TunnelReplicas,
		},
		pools: pools.Pools, told: map[string]string{},
	}
	w, err := newWatching(m, "domains", r, all(domainsDelay))
	if err != nil {
		return err
	}
	pools.watch = func(kind *unstructured.Unstructured) error {
		return w.objects(kind, nil, nil)
	}
	return errors.Join(
		w.objects(&corev1.Node{}, nil, nodeMoved),
		w.objects(&gateway.Gateway{}, nil, specChanged),
	)
}

// nodeMoved tells changes of labels from the many other updates of a node.
func nodeMoved(e event.UpdateEvent) bool {
	return !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())
}

// specChanged tells them from changes of the status.
func specChanged(e event.UpdateEvent) bool {
	was, is := e.ObjectOld, e.ObjectNew
	return was.GetGeneration() != is.GetGeneration() || !maps.Equal(was.GetLabels(), is.GetLabels()) ||
		!maps.Equal(was.GetAnnotations(), is.GetAnnotations()) ||
		was.GetDeletionTimestamp().IsZero() != is.GetDeletionTimestamp().IsZero()
}

// Reconcile makes the cluster what the plan says. It comes back after a while even
// if nothing happens, because NodePools may appear.
func (r *domains) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	result := reconcile.Result{RequeueAfter: discoveryPeriod}
	state, objects, err := r.read(ctx)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("domains: %w", err)
	}
	plan := domain.Decide(r.config, state)
	r.tell(plan.Strange, objects)
	w := &domainWriter{domains: r, objects: objects, absent: map[string]bool{}}
	if err := w.write(ctx, plan); err != nil {
		return reconcile.Result{}, fmt.Errorf("domains: %w", err)
	}
	if w.again > 0 {
		result.RequeueAfter = min(result.RequeueAfter, w.again)
	}
	return result, nil
}

// domainObjects are what the state was made of.
type domainObjects struct {
	nodes    map[string]*corev1.Node
	gateways map[string]*gateway.Gateway
}

// read takes the state from the cache. Nothing of it may be changed.
func (r *domains) read(ctx context.Context) (domain.State, domainObjects, error) {
	objects := domainObjects{map[string]*corev1.Node{}, map[string]*gateway.Gateway{}}
	pools, err := r.pools(ctx)
	if err != nil {
		return domain.State{}, objects, err
	}
	state := domain.State{Pools: pools}
	var nodes corev1.NodeList
	if err := r.client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		return state, objects, err
	}
	for i := range nodes.Items {
		n := &nodes.Items[i]
		objects.nodes[n.Name] = n
		state.Nodes = append(state.Nodes, domain.Node{Name: n.Name, Labels: n.Labels, Ours: labelledByUs(n)})
	}
	var gateways gateway.GatewayList
	if err := r.client.List(ctx, &gateways, client.UnsafeDisableDeepCopy); err != nil {
		return state, objects, err
	}
	for i := range gateways.Items {
		g := &gateways.Items[i]
		objects.gateways[g.Name] = g
		state.Gateways = append(state.Gateways, domain.Gateway{Gateway: g.Plain(), Deleting: !g.DeletionTimestamp.IsZero()})
	}
	return state, objects, nil
}

// tell raises an event for each problem once.
func (r *domains) tell(problems []domain.Problem, objects domainObjects) {
	now := make(map[string]string, len(problems))
	for _, p := range problems {
		now[p.Node] = p.Text
		if r.told[p.Node] == p.Text {
			continue
		}
		r.log.Warn("a node is not managed", "node", p.Node, "why", p.Text)
		r.events.Eventf(objects.nodes[p.Node], nil, corev1.EventTypeWarning, "GatewayMissing", "LeaveAlone", "%s", p.Text)
	}
	r.told = now
}

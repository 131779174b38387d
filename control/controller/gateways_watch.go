package controller

import (
	"context"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"corax/control/api/v1beta1"
	"corax/control/controller/election"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

// nodesByGateway is the index of nodes by the label that names their Gateway.
const nodesByGateway = "corax.io/nodes-by-gateway"

// Bounds of what fails: an API server that is away is asked again soon, since a
// gateway node may die at that moment.
const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 3 * time.Second
	// electors is how many Gateways are worked on at once.
	electors = 4
)

type (
	queueInterface = workqueue.TypedRateLimitingInterface[reconcile.Request]
	nodeHandler    = handler.TypedFuncs[*corev1.Node, reconcile.Request]
	leaseHandler   = handler.TypedFuncs[*coordinationv1.Lease, reconcile.Request]
	configHandler  = handler.TypedFuncs[*corev1.ConfigMap, reconcile.Request]
)

// addGateways adds the election to the manager.
func addGateways(m manager.Manager, cfg Config, g *guard) error {
	r := &electorate{
		client: m.GetClient(), api: m.GetAPIReader(), guard: g, events: m.GetEventRecorder(name),
		log: cfg.Log.With("component", "gateways"), cfg: cfg,
	}
	if err := m.GetFieldIndexer().IndexField(context.Background(), &corev1.Node{}, nodesByGateway, gatewayOf); err != nil {
		return err
	}
	if err := m.GetFieldIndexer().IndexField(context.Background(), &gateway.Gateway{}, gatewaysByKey, keysOf); err != nil {
		return err
	}
	c, err := controller.New("gateways", m, controller.Options{
		Reconciler:              r,
		MaxConcurrentReconciles: electors,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFirst, retryMost),
	})
	if err != nil {
		return err
	}
	byName := predicate.NewTypedPredicateFuncs(func(cm *corev1.ConfigMap) bool {
		return cm.Namespace == cfg.Namespace && cm.Name == exposure.SettingsName
	})
	for _, s := range []source.Source{
		r.queue.source(),
		source.Kind(m.GetCache(), &gateway.Gateway{}, &handler.TypedEnqueueRequestForObject[*gateway.Gateway]{}),
		source.Kind(m.GetCache(), &corev1.Node{}, handler.TypedEventHandler[*corev1.Node, reconcile.Request](r.nodeEvents())),
		source.Kind(m.GetCache(), &coordinationv1.Lease{}, handler.TypedEventHandler[*coordinationv1.Lease, reconcile.Request](r.leaseEvents())),
		source.Kind(m.GetCache(), &corev1.ConfigMap{}, handler.TypedEventHandler[*corev1.ConfigMap, reconcile.Request](r.configEvents()), byName),
	} {
		if err := c.Watch(s); err != nil {
			return err
		}
	}
	if err := addLeases(m, cfg, g); err != nil {
		return err
	}
	if err := m.Add(always(r.watchLeases)); err != nil {
		return err
	}
	return m.Add(always(func(ctx context.Context) error {
		return r.watchBlocks(ctx, m.GetRESTMapper(), m.GetCache())
	}))
}

// always is something that runs on every replica, the leader or not.
type always func(context.Context) error

// Start runs it.
func (f always) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection says that it does not.
func (always) NeedLeaderElection() bool { return false }

// gatewayOf returns the name of a node's Gateway, as an index wants it.
func gatewayOf(o client.Object) []string {
	if g := o.GetLabels()[v1beta1.LabelGateway]; g != "" {
		return []string{g}
	}
	return nil
}

// nodeEvents asks for the Gateways of nodes that changed in what counts.
func (r *electorate) nodeEvents() nodeHandler {
	add := func(q queueInterface, n *corev1.Node) {
		for _, g := range gatewayOf(n) {
			q.Add(request(g))
		}
	}
	return nodeHandler{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*corev1.Node], q queueInterface) { add(q, e.Object) },
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*corev1.Node], q queueInterface) { add(q, e.Object) },
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*corev1.Node], q queueInterface) {
			was, is := e.ObjectOld, e.ObjectNew
			if was.Labels[v1beta1.LabelGateway] != is.Labels[v1beta1.LabelGateway] {
				add(q, was)
			} else if election.ReadNode(was).Equal(election.ReadNode(is)) {
				return
			}
			add(q, is)
		},
	}
}

// leaseEvents tells the tracker of every Lease, and asks for the Gateways of those
// whose standing changed.
func (r *electorate) leaseEvents() leaseHandler {
	see := func(ctx context.Context, q queueInterface, l *coordinationv1.Lease) {
		if r.tracker.Observe(time.Now(), l.Name, election.ReadLease(l)) {
			r.addOf(ctx, q, l.Name)
		}
	}
	return leaseHandler{
		CreateFunc: func(ctx context.Context, e event.TypedCreateEvent[*coordinationv1.Lease], q queueInterface) {
			see(ctx, q, e.Object)
		},
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*coordinationv1.Lease], q queueInterface) {
			see(ctx, q, e.ObjectNew)
		},
		DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[*coordinationv1.Lease], q queueInterface) {
			if r.tracker.Forget(e.Object.Name) {
				r.addOf(ctx, q, e.Object.Name)
			}
		},
	}
}

// addOf asks for the Gateway of a node.
func (r *electorate) addOf(ctx context.Context, q queueInterface, node string) {
	n := &corev1.Node{}
	if err := r.client.Get(ctx, client.ObjectKey{Name: node}, n, client.UnsafeDisableDeepCopy); err != nil {
		return // the node's own event comes when there is one
	}
	for _, g := range gatewayOf(n) {
		q.Add(request(g))
	}
}

// configEvents asks for all Gateways when a switch changed.
func (r *electorate) configEvents() configHandler {
	all := func(ctx context.Context, q queueInterface) {
		var list gateway.GatewayList
		if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
			r.log.Warn("gateways cannot be listed", "err", err)
			return
		}
		for i := range list.Items {
			q.Add(request(list.Items[i].Name))
		}
	}
	return configHandler{
		CreateFunc: func(ctx context.Context, _ event.TypedCreateEvent[*corev1.ConfigMap], q queueInterface) { all(ctx, q) },
		DeleteFunc: func(ctx context.Context, _ event.TypedDeleteEvent[*corev1.ConfigMap], q queueInterface) { all(ctx, q) },
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*corev1.ConfigMap], q queueInterface) {
			was, is := exposure.ParseSettings(e.ObjectOld), exposure.ParseSettings(e.ObjectNew)
			if was.Tunnel != is.Tunnel || was.Proxy != is.Proxy {
				all(ctx, q)
			}
		},
	}
}

func request(gateway string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: gateway}}
}

// queue is the controller's queue, for what no object says: a Lease that lapsed.
// What is added before the controller runs is dropped; it then looks at everything.
type queue struct {
	mu sync.Mutex
	q  queueInterface
}

// source gives the queue to the controller.
func (q *queue) source() source.Source {
	return source.Func(func(_ context.Context, w queueInterface) error {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.q = w
		return nil
	})
}

func (q *queue) get() queueInterface {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.q
}

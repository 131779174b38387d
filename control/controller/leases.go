package controller

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// leftover deletes the Leases of nodes that were deleted: their agents cannot.
type leftover struct {
	client client.Client
	api    client.Reader
	guard  *guard
	cfg    Config
}

// addLeases adds it to the manager.
func addLeases(m manager.Manager, cfg Config, g *guard) error {
	r := &leftover{client: m.GetClient(), api: m.GetAPIReader(), guard: g, cfg: cfg}
	c, err := controller.New("leases", m, controller.Options{Reconciler: r})
	if err != nil {
		return err
	}
	// A node that goes, and on a start what went before; not each renewal.
	nodes := nodeHandler{
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*corev1.Node], q queueInterface) {
			q.Add(request(e.Object.Name))
		},
	}
	leases := leaseHandler{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*coordinationv1.Lease], q queueInterface) {
			if e.IsInInitialList {
				q.Add(request(e.Object.Name))
			}
		},
	}
	if err := c.Watch(source.Kind(m.GetCache(), &corev1.Node{}, handler.TypedEventHandler[*corev1.Node, reconcile.Request](nodes))); err != nil {
		return err
	}
	return c.Watch(source.Kind(m.GetCache(), &coordinationv1.Lease{}, handler.TypedEventHandler[*coordinationv1.Lease, reconcile.Request](leases)))
}

// Reconcile deletes a node's Lease when there is no such node.
func (r *leftover) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	l := &coordinationv1.Lease{}
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: r.cfg.LeaseNamespace, Name: req.Name}, l); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	for _, from := range []client.Reader{r.client, r.api} { // the cache may be behind
		err := from.Get(ctx, client.ObjectKey{Name: req.Name}, &corev1.Node{})
		if !apierrors.IsNotFound(err) {
			return reconcile.Result{}, err
		}
	}
	if ok, again := r.guard.Allows(ctx, l); !ok {
		return reconcile.Result{RequeueAfter: again}, nil
	}
	err := r.client.Delete(ctx, l, client.Preconditions{UID: &l.UID})
	if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
		return reconcile.Result{}, fmt.Errorf("delete the Lease: %w", err)
	}
	return reconcile.Result{}, nil
}

package controller

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Failures are tried again with a growing pause.
const (
	failRetryMin = 200 * time.Millisecond
	failRetryMax = time.Minute
)

// watching is a reconciler with what it watches.
type watching struct {
	controller.Controller
	cache   cache.Cache
	handler handler.EventHandler
}

// newWatching adds a reconciler to the manager. The handler makes requests of what
// happens to the objects that it watches.
func newWatching(m manager.Manager, name string, r reconcile.Reconciler, h handler.EventHandler) (*watching, error) {
	c, err := controller.New(name, m, controller.Options{
		Reconciler:  r,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](failRetryMin, failRetryMax),
	})
	return &watching{c, m.GetCache(), h}, err
}

// objects watches those of the type of o for which mine says so, and of their
// changes those that changed picks. Nil picks all.
func (w *watching) objects(o client.Object, mine func(client.Object) bool, changed func(event.UpdateEvent) bool) error {
	return w.in(w.cache, o, w.handler, mine, changed)
}

// in watches like objects, in another cache and with another handler.
func (w *watching) in(c cache.Cache, o client.Object, h handler.EventHandler,
	mine func(client.Object) bool, changed func(event.UpdateEvent) bool,
) error {
	var some []predicate.Predicate
	if mine != nil {
		some = append(some, predicate.NewPredicateFuncs(mine))
	}
	if changed != nil {
		some = append(some, predicate.Funcs{UpdateFunc: changed})
	}
	return w.Watch(source.Kind(c, o, h, some...))
}

// lead makes a handler that asks for the names of an object, as it was and as it
// is, a moment later.
func lead(delay time.Duration, names func(context.Context, client.Object) []string) handler.EventHandler {
	add := func(ctx context.Context, o client.Object, q queueInterface) {
		for _, name := range names(ctx, o) {
			q.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}, delay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queueInterface) { add(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queueInterface) {
			add(ctx, e.ObjectOld, q)
			add(ctx, e.ObjectNew, q)
		},
		DeleteFunc:  func(ctx context.Context, e event.DeleteEvent, q queueInterface) { add(ctx, e.Object, q) },
		GenericFunc: func(ctx context.Context, e event.GenericEvent, q queueInterface) { add(ctx, e.Object, q) },
	}
}

// all leads every event to one request, that without a name.
func all(delay time.Duration) handler.EventHandler {
	one := []string{""}
	return lead(delay, func(context.Context, client.Object) []string { return one })
}

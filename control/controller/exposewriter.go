package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

// exposer writes one result. It may stop anywhere: the next result has the rest.
type exposer struct {
	*expose
	g     *gateway.Gateway // nobody else's; it takes the answers
	gone  bool
	res   *exposure.Result
	again time.Duration // when the guard wants to be asked again; zero: never
	errs  []error
}

// write makes the cluster what the result says. A step that the later ones rely on
// ends it when it fails; other failures do not stop the rest.
func (w *exposer) write(ctx context.Context) error {
	ending := w.gone || w.g.DeletionTimestamp != nil
	held := controllerutil.ContainsFinalizer(w.g, v1beta1.FinalizerExposure)
	patch, err := endpointsPatch(w.g, w.res)
	if err != nil {
		return err
	}
	conditions := conditionsChange(w.g, w.res.Conditions, exposureConditions())
	if ending {
		patch, conditions = nil, false
	}
	if patch == nil && !conditions && w.res.Hold == held && w.unchanged() {
		return nil
	}
	// What is ours alone is released even if the Gateway is another's now: it
	// would keep the Gateway from going away.
	if !ending && !w.allowed(ctx, w.g) {
		return nil
	}
	if w.res.Hold && !held && !ending {
		if err := w.hold(ctx, true); err != nil {
			return err
		}
	}
	w.services(ctx)
	w.slices(ctx)
	// Published when there is somebody to answer, and cleared before it goes.
	if patch != nil {
		if err := w.patchEndpoints(ctx); err != nil {
			return errors.Join(append(w.errs, err)...)
		}
	}
	w.delete(ctx)
	if held && !w.res.Hold && len(w.errs) == 0 {
		w.release(ctx)
	}
	if conditions {
		w.note(setConditions(ctx, w.client, w.events, w.g, w.res.Conditions, exposureConditions(), w.now()))
	}
	return errors.Join(w.errs...)
}

// unchanged reports whether no Service or EndpointSlice is to be written.
func (w *exposer) unchanged() bool {
	return len(w.res.Create) == 0 && len(w.res.Change) == 0 && len(w.res.Delete) == 0 &&
		len(w.res.CreateSlices) == 0 && len(w.res.ChangeSlices) == 0 && len(w.res.DeleteSlices) == 0
}

func (w *exposer) note(err error) {
	if err != nil {
		w.errs = append(w.errs, err)
	}
}

func (w *exposer) allowed(ctx context.Context, o client.Object) bool {
	ok, again := w.guard.Allows(ctx, o)
	if !ok {
		w.again = sooner(w.again, again)
	}
	return ok
}

// hold adds the finalizer to the Gateway, or takes it off.
func (w *exposer) hold(ctx context.Context, on bool) error {
	is := w.g.DeepCopy()
	if on {
		controllerutil.AddFinalizer(is, v1beta1.FinalizerExposure)
	} else {
		controllerutil.RemoveFinalizer(is, v1beta1.FinalizerExposure)
	}
	err := w.client.Patch(ctx, is, client.MergeFromWithOptions(w.g.DeepCopy(), client.MergeFromWithOptimisticLock{}))
	if !on && apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("patch Gateway %s: %w", w.g.Name, err)
	}
	*w.g = *is
	return nil
}

// release takes the finalizer off when no Service is left: not even one that was
// made so recently that the cache does not have it.
func (w *exposer) release(ctx context.Context) {
	var list corev1.ServiceList
	err := w.api.List(ctx, &list, client.InNamespace(w.namespace), client.MatchingLabels{
		v1beta1.LabelGateway: w.g.Name, v1beta1.LabelGatewayType: v1beta1.TypeTunnel, v1beta1.LabelManagedBy: v1beta1.ManagedBy,
	})
	if err != nil {
		w.note(err)
		return
	}
	if slices.ContainsFunc(list.Items, func(s corev1.Service) bool { return s.DeletionTimestamp == nil }) {
		w.again = sooner(w.again, staleRetry)
		return
	}
	if err := w.hold(ctx, false); err != nil {
		w.note(err)
		return
	}
	w.log.Info("a Gateway is not exposed any more", "gateway", w.g.Name)
}

// services makes and changes Services. What the cache of a restarted controller
// does not have yet is there already.
func (w *exposer) services(ctx context.Context) {
	for _, s := range w.res.Create {
		err := w.client.Create(ctx, s)
		switch {
		case apierrors.IsAlreadyExists(err):
			w.again = sooner(w.again, staleRetry)
		case err != nil:
			w.note(fmt.Errorf("make Service %s: %w", s.Name, err))
		default:
			w.log.Info("a Service was made", "gateway", w.g.Name, "node", s.Labels[v1beta1.LabelEndpointsName], "service", s.Name)
		}
	}
	for _, c := range w.res.Change {
		if !w.allowed(ctx, c.Was) {
			continue
		}
		if w.res.Adopt[c.Was.Name] {
			// It would be mirrored to slices beside ours.
			if err := w.dropEndpoints(ctx, c.Was); err != nil {
				w.note(err)
				continue
			}
		}
		w.note(w.patch(ctx, c.Is, c.Was))
	}
}

func (w *exposer) slices(ctx context.Context) {
	for _, s := range w.res.CreateSlices {
		if err := w.client.Create(ctx, s); err != nil {
			w.note(fmt.Errorf("make EndpointSlice %s: %w", s.Name, err))
		}
	}
	for _, c := range w.res.ChangeSlices {
		w.note(w.patch(ctx, c.Is, c.Was))
	}
}

func (w *exposer) delete(ctx context.Context) {
	for _, s := range w.res.Delete {
		if w.g.DeletionTimestamp == nil && !w.allowed(ctx, s) {
			w.errs = append(w.errs, errStale) // so that the finalizer stays
			continue
		}
		if err := remove(ctx, w.client, s.DeepCopy()); err != nil {
			w.note(err)
			continue
		}
		w.log.Info("a Service was deleted", "gateway", w.g.Name, "node", s.Labels[v1beta1.LabelEndpointsName], "service", s.Name)
	}
	for _, s := range w.res.DeleteSlices {
		w.note(remove(ctx, w.client, s.DeepCopy()))
	}
}

// patch sends what differs between two versions. Somebody else's change in between
// makes it fail.
func (r *expose) patch(ctx context.Context, is, was client.Object) error {
	return patchObject(ctx, r.client, is, was)
}

// dropEndpoints deletes the Endpoints object of a Service.
func (r *expose) dropEndpoints(ctx context.Context, s *corev1.Service) error {
	return dropEndpoints(ctx, r.client, s)
}

func patchObject(ctx context.Context, c client.Client, is, was client.Object) error {
	was, ok := was.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("a %T is no object", was)
	}
	err := c.Patch(ctx, is, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{}))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patch %s %s: %w", kindOf(was), was.GetName(), err)
	}
	return nil
}

// remove deletes that very object, and no later one of its name.
func remove(ctx context.Context, c client.Client, o client.Object) error {
	uid := o.GetUID()
	err := c.Delete(ctx, o, client.Preconditions{UID: &uid})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete %s %s: %w", kindOf(o), o.GetName(), err)
	}
	return nil
}

func dropEndpoints(ctx context.Context, c client.Client, s *corev1.Service) error {
	e := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
	e.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Endpoints"))
	if err := c.Delete(ctx, e); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete Endpoints %s: %w", s.Name, err)
	}
	return nil
}

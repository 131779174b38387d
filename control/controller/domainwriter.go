package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
	"corax/control/kube/gateway"
)

// writersAtOnce bounds the requests under way.
const writersAtOnce = 8

// domainWriter writes one plan. Each write is conditional on what the plan saw:
// somebody else's change in between makes it fail, and the next plan sees it.
type domainWriter struct {
	*domains
	objects domainObjects

	mu     sync.Mutex
	absent map[string]bool // Gateways that the plan counts on and that are not there
	kept   map[string]bool // Gateways that a node still has
	again  time.Duration   // when the guard wants to be asked again; zero: never
	errs   []error
}

// write goes in an order in which a stop at any point leaves no node with the
// name of a Gateway that is not there. What fails does not stop the rest.
func (w *domainWriter) write(ctx context.Context, plan domain.Plan) error {
	w.kept = map[string]bool{}
	each(w, plan.Create, func(g v1beta1.Gateway) error { return w.create(ctx, g) })
	each(w, plan.Change, func(c domain.Change) error { return w.change(ctx, c) })
	each(w, plan.Nodes, func(l domain.Label) error { return w.label(ctx, l) })
	each(w, plan.Delete, func(name string) error { return w.delete(ctx, name) })
	const most = 10
	if rest := len(w.errs) - most; rest > 0 {
		w.errs = append(w.errs[:most], fmt.Errorf("and %d more", rest))
	}
	return errors.Join(w.errs...)
}

// each calls f for all elements, several at once.
func each[T any](w *domainWriter, list []T, f func(T) error) {
	var group errgroup.Group
	group.SetLimit(writersAtOnce)
	for _, x := range list {
		group.Go(func() error {
			if err := f(x); err != nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.errs = append(w.errs, err)
			}
			return nil
		})
	}
	_ = group.Wait()
}

// allowed asks the guard, and remembers when to ask again.
func (w *domainWriter) allowed(ctx context.Context, o client.Object) bool {
	ok, again := w.guard.Allows(ctx, o)
	if !ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.again == 0 || again < w.again {
			w.again = again
		}
	}
	return ok
}

func (w *domainWriter) note(set map[string]bool, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	set[name] = true
}

func (w *domainWriter) create(ctx context.Context, plain v1beta1.Gateway) error {
	g := gateway.FromPlain(plain)
	if !w.allowed(ctx, g) {
		w.note(w.absent, g.Name)
		return nil
	}
	if err := w.client.Create(ctx, g); err != nil {
		w.note(w.absent, plain.Metadata.Name)
		return fmt.Errorf("make Gateway %s: %w", plain.Metadata.Name, err)
	}
	w.log.Info("a Gateway was made", "gateway", g.Name, "domain", g.Annotations[v1beta1.AnnotationDomain])
	return nil
}

func (w *domainWriter) change(ctx context.Context, c domain.Change) error {
	g := w.objects.gateways[c.Name]
	if !w.allowed(ctx, g) {
		return nil
	}
	spec := map[string]any{}
	if c.Proxy != nil {
		spec["proxyConfig"] = map[string]int{"Replicas": *c.Proxy}
	}
	if c.Tunnel != nil {
		spec["tunnelConfig"] = map[string]int{"Replicas": *c.Tunnel}
	}
	return w.patch(ctx, bareGateway(g), map[string]any{
		"metadata": map[string]any{
			"resourceVersion": g.ResourceVersion,
			"annotations":     map[string]any{v1beta1.AnnotationReplicas: c.Written},
		},
		"spec": spec,
	})
}

func (w *domainWriter) label(ctx context.Context, l domain.Label) error {
	n := w.objects.nodes[l.Node]
	w.mu.Lock()
	wait := w.absent[l.Gateway]
	w.mu.Unlock()
	if wait || !w.allowed(ctx, n) {
		w.note(w.kept, l.Had)
		return nil
	}
	err := w.patch(ctx, bareNode(n), map[string]any{"metadata": map[string]any{
		"resourceVersion": n.ResourceVersion,
		"labels":          map[string]any{v1beta1.LabelGateway: l.Gateway},
	}})
	if err != nil {
		w.note(w.kept, l.Had)
	}
	return err
}

func (w *domainWriter) delete(ctx context.Context, name string) error {
	g := w.objects.gateways[name]
	w.mu.Lock()
	kept := w.kept[name]
	w.mu.Unlock()
	if kept || !w.allowed(ctx, g) {
		return nil
	}
	if err := w.client.Delete(ctx, bareGateway(g), client.Preconditions{UID: &g.UID, ResourceVersion: &g.ResourceVersion}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete Gateway %s: %w", name, err)
	}
	w.log.Info("a Gateway was deleted", "gateway", name, "domain", g.Annotations[v1beta1.AnnotationDomain])
	return nil
}

// patch sends a merge patch. That the object is gone meanwhile is no error.
func (w *domainWriter) patch(ctx context.Context, o client.Object, doc map[string]any) error {
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	name := o.GetName() // the answer overwrites o
	err = w.client.Patch(ctx, o, client.RawPatch(types.MergePatchType, data))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patch %s %s: %w", kindOf(o), name, err)
	}
	return nil
}

// bareGateway and bareNode name an object for a request, since what is in the
// cache must not take the answer.
func bareGateway(g *gateway.Gateway) *gateway.Gateway {
	return &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: g.Name}}
}

func bareNode(n *corev1.Node) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
}

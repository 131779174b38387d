package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

// stopDeployment scales it to zero. Its Pods release the leader's Lease when they
// end.
func (r *removal) stopDeployment(ctx context.Context, deployment string) error {
	if deployment == "" {
		return nil
	}
	d := &unstructured.Unstructured{}
	d.SetGroupVersionKind(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"})
	d.SetNamespace(r.cfg.Namespace)
	d.SetName(deployment)
	return client.IgnoreNotFound(r.patch(ctx, d, map[string]any{"spec": map[string]any{"replicas": 0}}))
}

// unlabelNodes removes the labels that we wrote, or that name a Gateway of ours.
func (r *removal) unlabelNodes(ctx context.Context) error {
	var gateways gateway.GatewayList
	// Without the CRD there are none, and labels all the same.
	if err := r.client.List(ctx, &gateways); ignoreAbsent(err) != nil {
		return err
	}
	own := map[string]bool{}
	for i := range gateways.Items {
		own[gateways.Items[i].Name] = madeByUs(&gateways.Items[i])
	}
	var nodes corev1.NodeList
	if err := r.client.List(ctx, &nodes); err != nil {
		return err
	}
	var errs []error
	for i := range nodes.Items {
		n := &nodes.Items[i]
		label, labelled := n.Labels[v1beta1.LabelGateway]
		if !labelled || !own[label] && !labelledByUs(n) {
			continue
		}
		errs = append(errs, client.IgnoreNotFound(r.patch(ctx, bareNode(n), map[string]any{"metadata": map[string]any{
			"labels": map[string]any{v1beta1.LabelGateway: nil},
		}})))
	}
	return errors.Join(errs...)
}

func madeByUs(g *gateway.Gateway) bool {
	plain := g.Plain()
	return domain.Of(&plain) != ""
}

// freeGateways deletes the Gateways that we made, and takes our finalizer and our
// annotations from all others.
func (r *removal) freeGateways(ctx context.Context) error {
	var list gateway.GatewayList
	if err := r.client.List(ctx, &list); err != nil {
		return ignoreAbsent(err)
	}
	var errs []error
	for i := range list.Items {
		g := &list.Items[i]
		err := errors.Join(r.withdraw(ctx, g), r.freeGateway(ctx, g))
		if err == nil && madeByUs(g) {
			err = client.IgnoreNotFound(r.client.Delete(ctx, bareGateway(g)))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ourAnnotations are those that the controller writes on Gateways of people too.
func ourAnnotations() []string {
	return []string{
		v1beta1.AnnotationProxyPorts, v1beta1.AnnotationEpoch, v1beta1.AnnotationEpochOf,
		v1beta1.AnnotationCandidates, v1beta1.AnnotationReplicas,
	}
}

// withdraw takes the nodes' own addresses that we wrote out of a person's Gateway.
func (r *removal) withdraw(ctx context.Context, g *gateway.Gateway) error {
	if madeByUs(g) {
		return nil // it goes as a whole
	}
	want := exposure.Withdraw(g)
	patch, err := endpointsPatch(g, &want)
	if err != nil || patch == nil {
		return err
	}
	// The answer has the resourceVersion that the next patch needs.
	if err := r.client.Patch(ctx, g, client.RawPatch(types.JSONPatchType, patch)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("patch endpoints of Gateway %s: %w", g.Name, err)
	}
	return nil
}

func (r *removal) freeGateway(ctx context.Context, g *gateway.Gateway) error {
	doc := map[string]any{}
	var stay []string
	for _, f := range g.Finalizers {
		if f == v1beta1.FinalizerExposure {
			// A list is replaced as a whole: nobody may have added to it.
			doc["resourceVersion"] = g.ResourceVersion
			doc["finalizers"] = &stay
		} else {
			stay = append(stay, f)
		}
	}
	if !madeByUs(g) {
		gone := map[string]any{}
		for _, a := range ourAnnotations() {
			if _, ok := g.Annotations[a]; ok {
				gone[a] = nil
			}
		}
		if len(gone) > 0 {
			doc["annotations"] = gone
		}
	}
	if len(doc) == 0 {
		return nil
	}
	return client.IgnoreNotFound(r.patch(ctx, bareGateway(g), map[string]any{"metadata": doc}))
}

// deleteOwn deletes what carries our label, of one kind, in our namespace.
func (r *removal) deleteOwn(ctx context.Context, list client.ObjectList) error {
	var label client.MatchingLabels = map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy}
	if _, ok := list.(*discoveryv1.EndpointSliceList); ok {
		label = map[string]string{discoveryv1.LabelManagedBy: v1beta1.ManagedBy}
	}
	if err := r.client.List(ctx, list, client.InNamespace(r.cfg.Namespace), label); err != nil {
		return err
	}
	return r.deleteAll(ctx, list)
}

// deleteLeases deletes those of the agents: their namespace is for nothing else.
func (r *removal) deleteLeases(ctx context.Context) error {
	var list coordinationv1.LeaseList
	if err := r.client.List(ctx, &list, client.InNamespace(r.cfg.LeaseNamespace)); err != nil {
		return err
	}
	return r.deleteAll(ctx, &list)
}

func (r *removal) deleteAll(ctx context.Context, list client.ObjectList) error {
	return meta.EachListItem(list, func(o runtime.Object) error {
		x, ok := o.(client.Object)
		if !ok {
			return nil
		}
		if err := client.IgnoreNotFound(r.client.Delete(ctx, x)); err != nil {
			return fmt.Errorf("delete %s %s: %w", kindOf(x), x.GetName(), err)
		}
		return nil
	})
}

// clearSettings empties what we wrote into raven-cfg. The ConfigMap itself is a
// person's.
func (r *removal) clearSettings(ctx context.Context) error {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.cfg.Namespace, Name: exposure.SettingsName}}
	if err := r.client.Get(ctx, client.ObjectKeyFromObject(cm), cm); err != nil {
		return client.IgnoreNotFound(err)
	}
	record, ok := cm.Annotations[v1beta1.AnnotationBalancer]
	if !ok {
		return nil
	}
	data := map[string]any{}
	var wrote map[string]string
	if json.Unmarshal([]byte(record), &wrote) == nil {
		for key, value := range wrote {
			if cm.Data[key] == value {
				data[key] = ""
			}
		}
	}
	return r.patch(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: cm.Namespace, Name: cm.Name}}, map[string]any{
		"metadata": map[string]any{
			"resourceVersion": cm.ResourceVersion,
			"annotations":     map[string]any{v1beta1.AnnotationBalancer: nil},
		},
		"data": data,
	})
}

// gone waits until nothing of ours of one kind is left: finalizers of others,
// those of a cloud's balancer, take their time.
func (r *removal) gone(ctx context.Context, list client.ObjectList) error {
	tick := time.NewTicker(goneEvery)
	defer tick.Stop()
	for {
		options := []client.ListOption{client.MatchingLabels{v1beta1.LabelManagedBy: v1beta1.ManagedBy}}
		if _, ok := list.(*corev1.ServiceList); ok {
			options = append(options, client.InNamespace(r.cfg.Namespace))
		}
		if err := r.client.List(ctx, list, options...); err != nil {
			return ignoreAbsent(err)
		}
		if meta.LenList(list) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d objects of %T are still being deleted", meta.LenList(list), list)
		case <-tick.C:
		}
	}
}

func (r *removal) patch(ctx context.Context, o client.Object, doc map[string]any) error {
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	kind, name := kindOf(o), o.GetName()
	if err := r.client.Patch(ctx, o, client.RawPatch(types.MergePatchType, data)); err != nil {
		return fmt.Errorf("patch %s %s: %w", kind, name, err)
	}
	return nil
}

// ignoreAbsent lets a cluster without our CRD be clean.
func ignoreAbsent(err error) error {
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

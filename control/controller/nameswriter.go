package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/controller/names"
	"corax/control/kube/gateway"
)

// write goes in an order in which nobody is led to what does not work: agents learn
// of a port before it leads to them, and the hosts file leads to the Service only
// while that is there.
func (v *namesView) write(ctx context.Context) error {
	v.problems = v.plan.Problems
	errs := []error{v.annotate(ctx)}
	if v.plan.On {
		errs = append(errs, v.serve(ctx))
	}
	errs = append(errs, v.serveConnect(ctx))
	if err := v.hosts(ctx); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if !v.plan.On {
		errs = append(errs, v.stop(ctx))
	}
	return errors.Join(errs...)
}

func (v *namesView) allowed(ctx context.Context, o client.Object) bool {
	ok, again := v.guard.Allows(ctx, o)
	if !ok {
		v.again = sooner(v.again, again)
	}
	return ok
}

// annotate notes the port map on Gateways.
func (v *namesView) annotate(ctx context.Context) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(v.plan.Annotations)) {
		was := v.gateways[name]
		if !v.allowed(ctx, was) {
			continue
		}
		is := &gateway.Gateway{ObjectMeta: *was.ObjectMeta.DeepCopy(), Spec: was.Spec, Status: was.Status}
		if value := v.plan.Annotations[name]; value == "" {
			delete(is.Annotations, v1beta1.AnnotationProxyPorts)
		} else {
			metav1.SetMetaDataAnnotation(&is.ObjectMeta, v1beta1.AnnotationProxyPorts, value)
		}
		errs = append(errs, patchObject(ctx, v.client, is, was))
	}
	return errors.Join(errs...)
}

// serve brings the Service and its slices up to date.
func (v *namesView) serve(ctx context.Context) error {
	s := v.service
	if s != nil && s.DeletionTimestamp != nil {
		return nil // it is made anew when it is gone
	}
	if s != nil && !names.Usable(s) {
		v.problems = append(v.problems, names.Problem{
			Text: fmt.Sprintf("Service %s is somebody else's: it has a selector, or is no ClusterIP", s.Name),
		})
		v.service = nil
		return nil
	}
	want := names.Service(v.cfg.Namespace, s, v.plan.Ports)
	switch {
	case s == nil:
		if !v.allowed(ctx, want) {
			return nil
		}
		if err := v.client.Create(ctx, want); err != nil {
			return fmt.Errorf("make Service %s: %w", want.Name, err)
		}
		v.log.Info("a Service was made", "service", want.Name)
	case !equality.Semantic.DeepEqual(s.Labels, want.Labels) || !equality.Semantic.DeepEqual(s.Spec, want.Spec):
		if !v.allowed(ctx, s) {
			return nil
		}
		if s.Labels[v1beta1.LabelManagedBy] != v1beta1.ManagedBy {
			// It would be mirrored to slices beside ours.
			if err := dropEndpoints(ctx, v.client, s); err != nil {
				return err
			}
		}
		if err := patchObject(ctx, v.client, want, s); err != nil {
			return err
		}
	}
	v.service = want
	return v.serveSlices(ctx, v.slices, names.Slices(v.service, v.plan.Fronts, v.plan.Ports))
}

// serveConnect has the Service in front of HTTP CONNECT lead to the fronts, while
// somebody has made one.
func (v *namesView) serveConnect(ctx context.Context) error {
	s := v.connect.service
	if s == nil || s.DeletionTimestamp != nil {
		return nil // its slices go with it
	}
	if !names.Usable(s) {
		v.problems = append(v.problems, names.Problem{
			Text: fmt.Sprintf("Service %s is somebody else's: it has a selector, or is no ClusterIP", s.Name),
		})
		return nil
	}
	var want []*discoveryv1.EndpointSlice
	if v.plan.On {
		want = names.ConnectSlices(s, v.plan.Fronts)
	}
	if len(want)+len(v.connect.slices) == 0 || !v.allowed(ctx, s) {
		return nil
	}
	return v.serveSlices(ctx, v.connect.slices, want)
}

// serveSlices makes the slices of a Service what they should be.
func (v *namesView) serveSlices(ctx context.Context, all []discoveryv1.EndpointSlice, want []*discoveryv1.EndpointSlice) error {
	var errs []error
	for i := range all {
		have := &all[i]
		k := slices.IndexFunc(want, func(e *discoveryv1.EndpointSlice) bool {
			return e.Name == have.Name && e.AddressType == have.AddressType
		})
		if k < 0 {
			errs = append(errs, remove(ctx, v.client, have.DeepCopy()))
			continue
		}
		is := have.DeepCopy()
		is.Labels, is.OwnerReferences, is.Endpoints, is.Ports = want[k].Labels, want[k].OwnerReferences, want[k].Endpoints, want[k].Ports
		if !equality.Semantic.DeepEqual(have, is) {
			errs = append(errs, patchObject(ctx, v.client, is, have))
		}
		want = slices.Delete(want, k, k+1)
	}
	for _, e := range want {
		if err := v.client.Create(ctx, e); err != nil {
			errs = append(errs, fmt.Errorf("make EndpointSlice %s: %w", e.Name, err))
		}
	}
	return errors.Join(errs...)
}

// stop deletes the Service and its slices, if they are ours.
func (v *namesView) stop(ctx context.Context) error {
	var errs []error
	if s := v.service; s != nil && s.DeletionTimestamp == nil && s.Labels[v1beta1.LabelManagedBy] == v1beta1.ManagedBy {
		if !v.allowed(ctx, s) {
			return nil
		}
		errs = append(errs, remove(ctx, v.client, s.DeepCopy()))
		v.log.Info("a Service was deleted", "service", s.Name)
	}
	for i := range v.slices {
		errs = append(errs, remove(ctx, v.client, v.slices[i].DeepCopy()))
	}
	return errors.Join(errs...)
}

// hosts writes the hosts file.
func (v *namesView) hosts(ctx context.Context) error {
	var front netip.Addr
	if v.plan.On && len(v.plan.Fronts) > 0 && v.service != nil && v.service.DeletionTimestamp == nil {
		front = names.ClusterIP(v.service)
	}
	text, problems := names.Hosts(v.nodes, front)
	for _, p := range problems {
		v.problems = append(v.problems, names.Problem{Text: p})
	}
	have := &corev1.ConfigMap{}
	err := v.file.Get(ctx, client.ObjectKey{Namespace: v.cfg.Namespace, Name: names.ConfigMapName}, have)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil {
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: v.cfg.Namespace, Name: names.ConfigMapName,
				Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy},
			},
			Data: map[string]string{names.HostsKey: text},
		}
		if !v.allowed(ctx, cm) {
			return nil
		}
		if err := v.client.Create(ctx, cm); err != nil {
			return fmt.Errorf("make ConfigMap %s: %w", names.ConfigMapName, err)
		}
		return nil
	}
	if now, ok := have.Data[names.HostsKey]; ok && now == text || !v.allowed(ctx, have) {
		return nil
	}
	is := have.DeepCopy()
	if is.Data == nil {
		is.Data = map[string]string{}
	}
	is.Data[names.HostsKey] = text
	return patchObject(ctx, v.client, is, have)
}

// tell says once what a person should look at: of a Gateway as an event, else in
// the log.
func (v *namesView) tell() {
	now := map[names.Problem]bool{}
	for _, p := range v.problems {
		now[p] = true
		if v.told[p] {
			continue
		}
		v.log.Warn("names need attention", "gateway", p.Gateway, "why", p.Text)
		if g := v.gateways[p.Gateway]; g != nil {
			v.events.Eventf(g, nil, corev1.EventTypeWarning, "ProxyPorts", "MapPorts", "%.900s", p.Text)
		}
	}
	v.told = now
}

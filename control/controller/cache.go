package controller

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// cacheOptions keeps the cache small: namespaced objects only of the namespaces
// that we use, and without the parts that nobody reads. An object from the cache
// must therefore never be sent back as a whole; write patches.
func cacheOptions(cfg Config) cache.Options {
	of := func(namespace string) map[string]cache.Config { return map[string]cache.Config{namespace: {}} }
	return cache.Options{
		DefaultTransform: strip,
		ByObject: map[client.Object]cache.ByObject{
			&coordinationv1.Lease{}:      {Namespaces: of(cfg.LeaseNamespace)},
			&corev1.ConfigMap{}:          {Namespaces: of(cfg.Namespace)},
			&corev1.Service{}:            {Namespaces: of(cfg.Namespace)},
			&discoveryv1.EndpointSlice{}: {Namespaces: of(cfg.Namespace)},
			&corev1.Node{}:               {Transform: stripNode},
		},
	}
}

// strip removes the bulk of the metadata. Of managedFields it leaves who wrote
// when, of foreign controllers only: that is what the guard reads.
func strip(object any) (any, error) {
	m, err := meta.Accessor(object)
	if err != nil {
		return object, nil //nolint:nilerr // a tombstone has no metadata
	}
	var foreign []metav1.ManagedFieldsEntry
	for _, e := range m.GetManagedFields() {
		if e.Manager == foreignManager {
			e.FieldsV1 = nil
			foreign = append(foreign, e)
		}
	}
	m.SetManagedFields(foreign)
	return object, nil
}

// stripNode also drops the lists that make a Node large.
func stripNode(object any) (any, error) {
	if n, ok := object.(*corev1.Node); ok {
		n.Status.Images, n.Status.VolumesInUse, n.Status.VolumesAttached = nil, nil, nil
		n.Status.Capacity, n.Status.Allocatable, n.Status.RuntimeHandlers = nil, nil, nil
	}
	return strip(object)
}

package controller

import (
	"bytes"
	"encoding/json"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
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
			&corev1.ConfigMap{}:          oneConfigMap(cfg.Namespace, exposure.SettingsName),
			&corev1.Service{}:            {Namespaces: of(cfg.Namespace)},
			&discoveryv1.EndpointSlice{}: {Namespaces: of(cfg.Namespace)},
			&corev1.Node{}:               {Transform: stripNode},
			// Those of kubelets come as fronts' do; others' need not be seen.
			&certificatesv1.CertificateSigningRequest{}: {
				Field: fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName),
			},
		},
	}
}

// oneConfigMap keeps a single one: the others of the namespace are none of ours to
// read, and may be large.
func oneConfigMap(namespace, name string) cache.ByObject {
	return cache.ByObject{Namespaces: map[string]cache.Config{
		namespace: {FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name)},
	}}
}

// ownCache is a cache beside the manager's, which starts and ends it like its own.
type ownCache struct{ cache.Cache }

// GetCache says so.
func (c ownCache) GetCache() cache.Cache { return c.Cache }

// newConfigMapCache caches a single ConfigMap: one cache can select no two by name.
func newConfigMapCache(m manager.Manager, namespace, name string) (cache.Cache, error) {
	c, err := cache.New(m.GetConfig(), cache.Options{
		HTTPClient: m.GetHTTPClient(), Scheme: m.GetScheme(), Mapper: m.GetRESTMapper(), DefaultTransform: strip,
		ByObject: map[client.Object]cache.ByObject{&corev1.ConfigMap{}: oneConfigMap(namespace, name)},
	})
	if err != nil {
		return nil, err
	}
	return c, m.Add(ownCache{c})
}

// strip removes the bulk of the metadata. Of managedFields it leaves who wrote
// when, of foreign controllers only: that is what the guard reads.
func strip(object any) (any, error) {
	if m, err := meta.Accessor(object); err == nil { // a tombstone has no metadata
		var foreign []metav1.ManagedFieldsEntry
		for _, e := range m.GetManagedFields() {
			if e.Manager == foreignManager {
				e.FieldsV1 = nil
				foreign = append(foreign, e)
			}
		}
		m.SetManagedFields(foreign)
	}
	return object, nil
}

// stripNode also drops the lists that make a Node large. Of managedFields it
// leaves who wrote the label that names the Gateway.
func stripNode(object any) (any, error) {
	n, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	n.Status.Images, n.Status.VolumesInUse, n.Status.VolumesAttached = nil, nil, nil
	n.Status.Capacity, n.Status.Allocatable, n.Status.RuntimeHandlers = nil, nil, nil
	n.ManagedFields = slices.DeleteFunc(n.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return !holdsGateway(e) })
	return n, nil
}

// labelledByUs reports whether it was us who wrote the label of n that names its
// Gateway: the API server keeps that in managedFields, and a person who changes
// the label takes it over.
func labelledByUs(n *corev1.Node) bool {
	return slices.ContainsFunc(n.ManagedFields, func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == name && holdsGateway(e)
	})
}

// holdsGateway looks into a field set, which has a key for every field.
func holdsGateway(e metav1.ManagedFieldsEntry) bool {
	const label = "f:" + v1beta1.LabelGateway
	// Most sets are those of the kubelet, large and without it.
	if e.FieldsV1 == nil || !bytes.Contains(e.FieldsV1.GetRawBytes(), []byte(label)) {
		return false
	}
	var set struct {
		Metadata struct {
			Labels map[string]json.RawMessage `json:"f:labels"`
		} `json:"f:metadata"`
	}
	if json.Unmarshal(e.FieldsV1.GetRawBytes(), &set) != nil {
		return false
	}
	_, ok := set.Metadata.Labels[label]
	return ok
}

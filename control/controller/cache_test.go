package controller

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

func entry(manager, fields string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{Manager: manager, FieldsV1: metav1.NewFieldsV1(fields)}
}

// TestLabelledByUs reads field sets as API servers write them, before and after
// the cache has stripped them.
func TestLabelledByUs(t *testing.T) {
	const label = `{"f:metadata":{"f:labels":{".":{},"f:raven.openyurt.io/gateway":{}}}}`
	for _, tt := range []struct {
		name   string
		fields []metav1.ManagedFieldsEntry
		want   bool
	}{
		{"nobody", nil, false},
		{"we", []metav1.ManagedFieldsEntry{entry("kubelet", `{"f:status":{}}`), entry(name, label)}, true},
		{"a person", []metav1.ManagedFieldsEntry{entry("kubectl-label", label)}, false},
		{"we wrote another", []metav1.ManagedFieldsEntry{entry(name, `{"f:metadata":{"f:labels":{"f:raven.openyurt.io/gateway-node":{}}}}`)}, false},
		{"we wrote an annotation", []metav1.ManagedFieldsEntry{entry(name, `{"f:metadata":{"f:annotations":{"f:raven.openyurt.io/gateway":{}}}}`)}, false},
		{"no field set", []metav1.ManagedFieldsEntry{{Manager: name}, entry(name, `"f:raven.openyurt.io/gateway"`)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{ManagedFields: tt.fields}}
			if labelledByUs(n) != tt.want {
				t.Error("before")
			}
			if _, err := stripNode(n); err != nil || labelledByUs(n) != tt.want {
				t.Errorf("stripped: %v", err)
			}
			for _, e := range n.ManagedFields {
				if e.Manager == "kubelet" {
					t.Error("the kubelet's fields are kept")
				}
			}
		})
	}
}

func TestStrip(t *testing.T) {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{
		entry("kubectl", `{}`), entry(foreignManager, `{"f:data":{}}`),
	}}}
	if _, err := strip(cm); err != nil {
		t.Fatal(err)
	}
	if len(cm.ManagedFields) != 1 || cm.ManagedFields[0].Manager != foreignManager || cm.ManagedFields[0].FieldsV1 != nil {
		t.Errorf("%+v", cm.ManagedFields)
	}
	for _, f := range []func(any) (any, error){strip, stripNode} {
		gone := cache.DeletedFinalStateUnknown{Key: "x"}
		if got, err := f(gone); err != nil || got != gone {
			t.Errorf("a tombstone: %v, %v", got, err)
		}
	}
	n := &corev1.Node{Status: corev1.NodeStatus{
		Images: make([]corev1.ContainerImage, 50), Addresses: make([]corev1.NodeAddress, 1), Conditions: make([]corev1.NodeCondition, 1),
	}}
	if _, err := stripNode(n); err != nil || len(n.Status.Images) > 0 || len(n.Status.Addresses) != 1 || len(n.Status.Conditions) != 1 {
		t.Errorf("%v: %+v", err, n.Status)
	}
}

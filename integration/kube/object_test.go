//go:build linux

package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// crd is where the CustomResourceDefinition is in the checkout.
const crd = "deploy/crd"

var gatewayResource = schema.GroupVersionResource{Group: "raven.openyurt.io", Version: "v1beta1", Resource: "gateways"}

// object is what JSON calls one.
type object = map[string]any

// gateways reads and writes Gateways as the API server has them, unknown fields
// and all, as one user.
type gateways struct{ dynamic.ResourceInterface }

func gatewaysOf(t *testing.T, cfg *rest.Config) gateways {
	t.Helper()
	c, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return gateways{c.Resource(gatewayResource)}
}

// newGateway makes a Gateway with a spec.
func newGateway(name string, spec object) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: object{
		"apiVersion": "raven.openyurt.io/v1beta1", "kind": "Gateway",
		"metadata": object{"name": name}, "spec": spec,
	}}
}

// create creates a Gateway that must be accepted.
func (g gateways) create(t *testing.T, name string, spec object) *unstructured.Unstructured {
	t.Helper()
	made, err := g.Create(t.Context(), newGateway(name, spec), metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create gateway %s: %v", name, err)
	}
	return made
}

// get returns a Gateway that must be there.
func (g gateways) get(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	got, err := g.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get gateway %s: %v", name, err)
	}
	return got
}

// status writes fields of the status of a Gateway.
func (g gateways) status(t *testing.T, name string, status object) {
	t.Helper()
	if err := g.merge(t.Context(), name, object{"status": status}, "status"); err != nil {
		t.Fatalf("status of gateway %s: %v", name, err)
	}
}

// merge sends a JSON merge patch.
func (g gateways) merge(ctx context.Context, name string, patch object, subresource ...string) error {
	return g.patch(ctx, name, types.MergePatchType, patch, subresource...)
}

func (g gateways) patch(ctx context.Context, name string, kind types.PatchType, patch any, subresource ...string) error {
	b, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	_, err = g.Patch(ctx, name, kind, b, metav1.PatchOptions{}, subresource...)
	return err
}

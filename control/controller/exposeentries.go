package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

// endpointsPatch returns a JSON patch that makes the entries of g, and the note of
// what is ours in them, what the result says; nil when they are so. Both have the
// same entries in the same order. It changes fields, not entries, since others own
// the rest of each, and fails when somebody wrote the Gateway in between.
func endpointsPatch(g *gateway.Gateway, want *exposure.Result) ([]byte, error) {
	var ops []gateway.Op
	for i := range g.Spec.Endpoints {
		ops = append(ops, entryOps(i, &g.Spec.Endpoints[i], &want.Endpoints[i])...)
	}
	ops = append(ops, noteOps(g.Annotations, want.Note)...)
	if len(ops) == 0 {
		return nil, nil
	}
	test := gateway.Op{Op: "test", Path: gateway.Pointer("metadata", "resourceVersion"), Value: g.ResourceVersion}
	return json.Marshal(append([]gateway.Op{test}, ops...))
}

// noteOps makes the annotation of a Gateway what it should be.
func noteOps(annotations map[string]string, note string) []gateway.Op {
	path := gateway.Pointer("metadata", "annotations", v1beta1.AnnotationApplied)
	switch was, present := annotations[v1beta1.AnnotationApplied]; {
	case was == note && (present || note == ""):
		return nil
	case note == "":
		return []gateway.Op{{Op: "remove", Path: path}}
	case annotations == nil:
		return []gateway.Op{{
			Op: "add", Path: gateway.Pointer("metadata", "annotations"),
			Value: map[string]string{v1beta1.AnnotationApplied: note},
		}}
	default:
		return []gateway.Op{{Op: "add", Path: path, Value: note}}
	}
}

func entryOps(i int, was, is *v1beta1.Endpoint) []gateway.Op {
	var ops []gateway.Op
	at := func(field ...any) string {
		return gateway.Pointer(append([]any{"spec", "endpoints", i}, field...)...)
	}
	set := func(path string, value any, empty bool) {
		if empty {
			ops = append(ops, gateway.Op{Op: "remove", Path: path})
		} else {
			ops = append(ops, gateway.Op{Op: "add", Path: path, Value: value})
		}
	}
	if was.PublicIP != is.PublicIP {
		set(at("publicIP"), is.PublicIP, is.PublicIP == "")
	}
	if was.PublicPort != is.PublicPort {
		set(at("publicPort"), is.PublicPort, is.PublicPort == 0)
	}
	if was.Config == nil && len(is.Config) > 0 {
		return append(ops, gateway.Op{Op: "add", Path: at("config"), Value: is.Config})
	}
	keys := maps.Clone(was.Config)
	maps.Copy(keys, is.Config)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		old, had := was.Config[key]
		value, has := is.Config[key]
		if had != has || old != value {
			set(at("config", key), value, !has)
		}
	}
	return ops
}

// patchEndpoints makes the entries of the Gateway what the result says; errStale
// when somebody else was faster.
func (w *exposer) patchEndpoints(ctx context.Context) error {
	patch, err := endpointsPatch(w.g, w.res)
	if err != nil || patch == nil {
		return err
	}
	version := w.g.ResourceVersion
	err = w.client.Patch(ctx, w.g, client.RawPatch(types.JSONPatchType, patch))
	if apierrors.IsInvalid(err) {
		// Either the test failed, or the API server never takes such values.
		now := &gateway.Gateway{}
		if w.api.Get(ctx, client.ObjectKeyFromObject(w.g), now) == nil && now.ResourceVersion != version {
			return errStale
		}
	}
	if err != nil {
		return fmt.Errorf("patch endpoints of Gateway %s: %w", w.g.Name, err)
	}
	return nil
}

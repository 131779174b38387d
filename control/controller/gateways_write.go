package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
	"corax/control/controller/election"
	"corax/control/kube/gateway"
)

// errStale means that the object in the cache was not the newest one.
var errStale = errors.New("the object changed meanwhile")

// patchList changes spec.endpoints and the names of those that we listed, in one
// JSON patch that holds only for the version that was read. It fills g with the
// answer.
func (r *electorate) patchList(ctx context.Context, g *gateway.Gateway, l election.Listing) error {
	version := g.ResourceVersion
	body, err := json.Marshal(listOps(g, l))
	if err != nil {
		return err
	}
	err = r.patch(ctx, r.client.Patch, g, client.RawPatch(types.JSONPatchType, body))
	if !apierrors.IsInvalid(err) {
		return stale(err, "list endpoints")
	}
	// A test that failed and an object that the API server refuses look the same.
	live := &gateway.Gateway{}
	if err := r.api.Get(ctx, client.ObjectKeyFromObject(g), live); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if live.ResourceVersion != version {
		return errStale
	}
	return fmt.Errorf("list endpoints: %w", err)
}

// listOps are the steps of the patch.
func listOps(g *gateway.Gateway, l election.Listing) []gateway.Op {
	ops := []gateway.Op{{Op: "test", Path: "/metadata/resourceVersion", Value: g.ResourceVersion}}
	for _, i := range l.Remove {
		ops = append(ops,
			gateway.Op{Op: "test", Path: gateway.Pointer("spec", "endpoints", i, "nodeName"), Value: g.Spec.Endpoints[i].NodeName},
			gateway.Op{Op: "remove", Path: gateway.Pointer("spec", "endpoints", i)})
	}
	if g.Spec.Endpoints == nil {
		ops = append(ops, gateway.Op{Op: "add", Path: "/spec/endpoints", Value: l.Add})
	} else {
		for _, e := range l.Add {
			ops = append(ops, gateway.Op{Op: "add", Path: "/spec/endpoints/-", Value: e})
		}
	}
	ops = append(ops, replicasOps(g, l)...)
	if g.Annotations == nil {
		ops = append(ops, gateway.Op{Op: "add", Path: "/metadata/annotations", Value: map[string]string{}})
	}
	return append(ops, gateway.Op{
		Op: "add", Path: gateway.Pointer("metadata", "annotations", v1beta1.AnnotationCandidates),
		Value: strings.Join(l.Ours, ","),
	})
}

// replicasOps lowers Replicas with the endpoints where the API server would refuse
// the one without the other.
func replicasOps(g *gateway.Gateway, l election.Listing) []gateway.Op {
	if g.Spec.ProxyConfig == nil {
		return nil
	}
	left := slices.Concat(g.Spec.Endpoints, l.Add)
	for _, i := range l.Remove { // falling
		left = slices.Delete(left, i, i+1)
	}
	proxies := len(election.Active(left, v1beta1.TypeProxy))
	had := g.Spec.ProxyConfig.Replicas
	if had <= 1 || had <= proxies {
		return nil
	}
	return []gateway.Op{{Op: "replace", Path: "/spec/proxyConfig/Replicas", Value: domain.Replicas(had, proxies)}}
}

// patchStatus writes the status and fills g with the answer.
func (r *electorate) patchStatus(ctx context.Context, g *gateway.Gateway, patch []byte) error {
	write := func(ctx context.Context, o client.Object, p client.Patch, _ ...client.PatchOption) error {
		return r.client.Status().Patch(ctx, o, p)
	}
	return stale(r.patch(ctx, write, g, client.RawPatch(types.MergePatchType, patch)), "write status")
}

type patchFunc func(context.Context, client.Object, client.Patch, ...client.PatchOption) error

// patch writes, and fills g with the answer. It is decoded into an empty object,
// since what an answer leaves out would stay as it was.
func (r *electorate) patch(ctx context.Context, write patchFunc, g *gateway.Gateway, p client.Patch) error {
	answer := &gateway.Gateway{}
	answer.Name = g.Name
	if err := write(ctx, answer, p); err != nil {
		return err
	}
	*g = *answer
	return nil
}

// raise raises the epoch when the active endpoints, as they are written, are others
// than those that it was raised for.
func (r *electorate) raise(ctx context.Context, g *gateway.Gateway) error {
	plain := g.Plain()
	annotations := election.Epoch(&plain)
	if annotations == nil {
		return nil
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		// An epoch that was computed from an old one would turn back.
		"resourceVersion": g.ResourceVersion,
		"annotations":     annotations,
	}})
	if err != nil {
		return err
	}
	return stale(r.patch(ctx, r.client.Patch, g, client.RawPatch(types.MergePatchType, body)), "raise the epoch")
}

// stale tells writes that came too late from those that failed.
func stale(err error, what string) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return errStale
	}
	return fmt.Errorf("%s: %w", what, err)
}

// pause returns how long the status of a Gateway must not be written yet.
func (r *electorate) pause(now time.Time, name string, urgent bool) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.known[name]
	if m == nil {
		return 0
	}
	last := m.wrote
	if urgent {
		last = m.hurried
	}
	return max(0, statusGap-now.Sub(last))
}

func (r *electorate) wrote(now time.Time, name string, urgent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.memoryOf(name)
	m.wrote = now
	if urgent {
		m.hurried = now
	}
}

// seat tells the tracker who is active.
func (r *electorate) seat(now time.Time, g *gateway.Gateway) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var active []string
	for i := range g.Status.ActiveEndpoints {
		active = append(active, g.Status.ActiveEndpoints[i].NodeName)
	}
	m := r.memoryOf(g.Name)
	for _, n := range m.seated {
		if !slices.Contains(active, n) {
			r.tracker.Seat(now, n, false)
		}
	}
	for _, n := range active {
		r.tracker.Seat(now, n, true)
	}
	m.seated = active
}

// forget drops what is remembered of a Gateway that is gone.
func (r *electorate) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.known[name]; m != nil {
		for _, n := range m.seated {
			r.tracker.Seat(time.Now(), n, false)
		}
		delete(r.known, name)
	}
}

func (r *electorate) memoryOf(name string) *memory {
	m := r.known[name]
	if m == nil {
		if r.known == nil {
			r.known = map[string]*memory{}
		}
		m = &memory{}
		r.known[name] = m
	}
	return m
}

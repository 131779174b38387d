package controller

import (
	"context"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestLeaseOfADeletedNodeGoes(t *testing.T) {
	w := newWorld(t, readyNode("here", "pool", 1), testLease("here", "here", time.Now()), testLease("gone", "gone", time.Now()))
	r := &leftover{client: w.api, api: w.api, cfg: w.r.cfg}
	for _, n := range []string{"here", "gone", "never"} {
		if _, err := r.Reconcile(t.Context(), request(n)); err != nil {
			t.Fatal(err)
		}
	}
	var list coordinationv1.LeaseList
	if err := w.api.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Name != "here" {
		t.Errorf("left: %v", list.Items)
	}
}

// emptyCache knows no node yet.
type emptyCache struct{ client.Client }

func (c *emptyCache) Get(ctx context.Context, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if _, ok := o.(*coordinationv1.Lease); ok {
		return c.Client.Get(ctx, k, o, opts...)
	}
	return c.Client.Get(ctx, client.ObjectKey{Name: "nobody"}, o, opts...)
}

func TestLeaseStaysWhileTheNodeIsOnlyUnknownToTheCache(t *testing.T) {
	w := newWorld(t, readyNode("here", "pool", 1), testLease("here", "here", time.Now()))
	r := &leftover{client: &emptyCache{w.api}, api: w.api, cfg: w.r.cfg}
	if _, err := r.Reconcile(t.Context(), request("here")); err != nil {
		t.Fatal(err)
	}
	if err := w.api.Get(t.Context(), client.ObjectKey{Namespace: DefaultLeaseNamespace, Name: "here"}, &coordinationv1.Lease{}); err != nil {
		t.Errorf("the Lease of a living node: %v", err)
	}
}

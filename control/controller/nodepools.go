package controller

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/controller/domain"
)

const (
	// discoveryPeriod is how often the API server is asked for NodePools: their
	// CRD may come and go while we run.
	discoveryPeriod = time.Minute
	// poolsWait bounds the wait for the first list of NodePools.
	poolsWait = 20 * time.Second
)

// poolVersions are what we read, newest first: v1beta1 has no interConnectivity.
func poolVersions() []schema.GroupVersion {
	return []schema.GroupVersion{
		{Group: "apps.openyurt.io", Version: "v1beta2"},
		{Group: "apps.openyurt.io", Version: "v1beta1"},
	}
}

// nodePools reads NodePools as long as the cluster has them. It is used by one
// goroutine.
type nodePools struct {
	// resources lists what the API server has of a version, as discovery does.
	resources func(version string) (*metav1.APIResourceList, error)
	cache     cache.Cache
	watch     func(*unstructured.Unstructured) error // begins to reconcile on their changes
	log       *slog.Logger
	now       func() time.Time

	asked   time.Time
	version schema.GroupVersion // empty: the cluster has none
}

// Pools returns the NodePools by name; nil when the cluster has no such API. It
// fails while that is unknown, since to take one for the other would move every
// node.
func (p *nodePools) Pools(ctx context.Context) (map[string]domain.Pool, error) {
	if err := p.discover(ctx); err != nil {
		return nil, err
	}
	if p.version.Empty() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, poolsWait)
	defer cancel()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(p.version.WithKind("NodePoolList"))
	if err := p.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list NodePools of %s, which this account must be allowed to list and watch: %w", p.version, err)
	}
	pools := make(map[string]domain.Pool, len(list.Items))
	for i := range list.Items {
		pools[list.Items[i].GetName()] = poolOf(list.Items[i].Object)
	}
	return pools, nil
}

// discover finds out, once in a while, which version the cluster serves.
func (p *nodePools) discover(ctx context.Context) error {
	known := !p.asked.IsZero()
	if known && p.now().Sub(p.asked) < discoveryPeriod {
		return nil
	}
	version, err := p.served()
	switch {
	case err != nil && known: // an API server that does not answer removes nothing
		p.log.Debug("NodePools could not be looked up", "err", err)
		p.asked = p.now()
		return nil
	case err != nil:
		return fmt.Errorf("look up NodePools: %w", err)
	case known && version == p.version:
		p.asked = p.now()
		return nil
	}
	if !p.version.Empty() {
		if err := p.cache.RemoveInformer(ctx, nodePool(p.version)); err != nil {
			return err
		}
		p.version = schema.GroupVersion{}
	}
	if !version.Empty() {
		if err := p.watch(nodePool(version)); err != nil {
			return err
		}
	}
	p.log.Info("NodePools", "version", version.String(), "served", !version.Empty())
	p.version, p.asked = version, p.now()
	return nil
}

// served returns the newest version that the API server has NodePools in.
func (p *nodePools) served() (schema.GroupVersion, error) {
	for _, version := range poolVersions() {
		list, err := p.resources(version.String())
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return schema.GroupVersion{}, err
		}
		for _, r := range list.APIResources {
			if r.Name == "nodepools" {
				return version, nil
			}
		}
	}
	return schema.GroupVersion{}, nil
}

func nodePool(version schema.GroupVersion) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(version.WithKind("NodePool"))
	return u
}

// poolOf reads what counts of a NodePool. Fields of other types than expected
// count as absent.
func poolOf(o map[string]any) domain.Pool {
	kind, _, _ := unstructured.NestedString(o, "spec", "type")
	connected, found, err := unstructured.NestedBool(o, "spec", "interConnectivity")
	return domain.Pool{Edge: kind == "Edge", Apart: found && err == nil && !connected}
}

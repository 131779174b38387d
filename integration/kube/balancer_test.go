//go:build linux

package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"corax/integration/kube/cluster"
)

// balancerFinalizer is that of every cloud's load balancer controller.
const balancerFinalizer = "service.kubernetes.io/load-balancer-cleanup"

// balancers plays the load balancer controller of a cloud: it gives each Service
// an address of its own, and keeps a deleted one until its balancer is gone.
type balancers struct {
	c *cluster.Cluster
	// refuseMixed makes it give no address to a Service with two protocols, as
	// many clouds do.
	refuseMixed bool

	mu   sync.Mutex
	at   map[string]string // address by Service; it is released when the Service is
	made int
}

// playBalancers runs until the end of the test.
func playBalancers(t *testing.T, c *cluster.Cluster, refuseMixed bool) *balancers {
	t.Helper()
	b := &balancers{c: c, refuseMixed: refuseMixed, at: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { b.run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return b
}

// held returns the balancers that exist, by Service.
func (b *balancers) held() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for name := range b.at {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (b *balancers) run(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		list, err := b.c.Client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
		if err != nil {
			continue // the API server is away, or the test ends
		}
		for i := range list.Items {
			if s := &list.Items[i]; s.Spec.Type == corev1.ServiceTypeLoadBalancer {
				b.sync(ctx, s)
			}
		}
	}
}

// sync does what one Service needs; what fails is tried again with the next tick.
func (b *balancers) sync(ctx context.Context, s *corev1.Service) {
	protocols := map[corev1.Protocol]bool{}
	for _, p := range s.Spec.Ports {
		protocols[p.Protocol] = true
	}
	held := slices.Contains(s.Finalizers, balancerFinalizer)
	switch {
	case s.DeletionTimestamp != nil && held:
		b.mu.Lock()
		delete(b.at, s.Name)
		b.mu.Unlock()
		rest := slices.DeleteFunc(s.Finalizers, func(f string) bool { return f == balancerFinalizer })
		b.patch(ctx, s, object{"metadata": object{"finalizers": rest, "resourceVersion": s.ResourceVersion}})
	case s.DeletionTimestamp != nil:
	case !held:
		b.patch(ctx, s, object{"metadata": object{"finalizers": append(s.Finalizers, balancerFinalizer), "resourceVersion": s.ResourceVersion}})
	case len(s.Status.LoadBalancer.Ingress) == 0 && (len(protocols) == 1 || !b.refuseMixed):
		ip := s.Spec.LoadBalancerIP
		b.mu.Lock()
		if ip == "" {
			b.made++
			ip = fmt.Sprintf("203.0.113.%d", b.made)
		}
		b.at[s.Name] = ip
		b.mu.Unlock()
		b.patch(ctx, s, object{"status": object{"loadBalancer": object{"ingress": []any{object{"ip": ip, "ipMode": "VIP"}}}}}, "status")
	}
}

func (b *balancers) patch(ctx context.Context, s *corev1.Service, doc object, sub ...string) {
	data, err := json.Marshal(doc)
	if err != nil {
		return
	}
	_, _ = b.c.Client.CoreV1().Services(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, data, metav1.PatchOptions{}, sub...)
}

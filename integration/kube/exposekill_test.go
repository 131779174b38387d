//go:build linux

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

// TestExposeKilled kills the controller after every one of its writes: each may do
// one, and takes the next one's place. It must end where others do.
func TestExposeKilled(t *testing.T) {
	c, g := exposedCluster(t, cluster.Options{})
	cloud := playBalancers(t, c, false)
	kubeconfig := c.Kubeconfig(t, c.Config())
	lives := 0
	// live runs controllers, each until its first write, while done fails.
	live := func(what string, done func(context.Context) error) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		for done(ctx) != nil {
			if ctx.Err() != nil {
				t.Fatalf("%s: %v", what, done(t.Context()))
			}
			lives++
			short, kill := context.WithTimeout(ctx, 3*time.Second)
			err := controller.Run(short, controller.Config{
				Kubeconfig: kubeconfig, Disable: only("expose"), Log: testLog(t),
				WrapTransport: func(next http.RoundTripper) http.RoundTripper { return &oneWrite{next: next, kill: kill} },
			})
			kill()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	endpointSlices := func(ctx context.Context) int {
		list, err := c.Client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{})
		if err != nil {
			return -1
		}
		return len(list.Items)
	}
	live("exposed", func(ctx context.Context) error {
		list, err := g.published(ctx, "cloud")
		if err != nil {
			return err
		}
		typed, err := g.typed(ctx, "cloud")
		if n := endpointSlices(ctx); err == nil && (!allPublished(list) || n != 2 || !meta.IsStatusConditionTrue(typed.Status.Conditions, "Exposed")) {
			err = fmt.Errorf("%q, %d slices, %v", list, n, typed.Status.Conditions)
		}
		return err
	})
	if err := g.merge(t.Context(), "cloud", object{"spec": object{"exposeType": ""}}); err != nil {
		t.Fatal(err)
	}
	live("released", func(ctx context.Context) error {
		typed, err := g.typed(ctx, "cloud")
		if err != nil {
			return err
		}
		services, err := ownServices(ctx, c)
		n := endpointSlices(ctx)
		if len(typed.Finalizers)+len(services)+len(cloud.held())+len(typed.Status.Conditions) > 0 || n != 0 {
			return fmt.Errorf("%v, %d Services, %v, %d slices, %v", typed.Finalizers, len(services), cloud.held(), n, typed.Status.Conditions)
		}
		return err
	})
	if list, err := g.published(t.Context(), "cloud"); err != nil || !nonePublished(list) {
		t.Errorf("%q, %v", list, err)
	}
	if writes := controllerWrites(t, c, 0); len(writes) < 14 || len(writes) > lives {
		t.Errorf("%d controllers did %v", lives, writes)
	}
}

// oneWrite lets one write pass, then none, and kills.
type oneWrite struct {
	next http.RoundTripper
	kill func()

	mu    sync.Mutex
	spent bool
}

// RoundTrip sends what only reads, and the first write.
func (o *oneWrite) RoundTrip(r *http.Request) (*http.Response, error) {
	asks := strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews") // a question, posted
	if r.Method == http.MethodGet || asks || strings.Contains(r.URL.Path, "/events") {
		return o.next.RoundTrip(r)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.spent {
		return nil, errors.New("the controller was killed")
	}
	o.spent = true
	defer o.kill()
	answer, err := o.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	_ = answer.Body.Close()
	return nil, errors.New("the controller was killed before it read the answer")
}

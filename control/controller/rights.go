package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/controller/names"
	"corax/control/kube/gateway"
)

const (
	// rightsPeriod is how often a right that is missing is asked for, and the least
	// time between two rounds of questions.
	rightsPeriod = 5 * time.Second
	// rightsPatience bounds a round.
	rightsPatience = 10 * time.Second
)

// readable is a kind of objects that a cache holds. It never fills without the right
// to list and watch them, and whoever waits for it waits for ever.
type readable struct{ group, resource, namespace, name string }

func (r readable) String() string {
	s := r.resource
	if r.group != "" {
		s += "." + r.group
	}
	if r.name != "" {
		s += "/" + r.name
	}
	if r.namespace != "" {
		s += " in " + r.namespace
	}
	return s
}

// reads returns what each reconciler reads.
func reads(cfg Config) map[string][]readable {
	nodes, gateways := readable{resource: "nodes"}, readable{group: v1beta1.Group, resource: gateway.Resource}
	leases := readable{group: "coordination.k8s.io", resource: "leases", namespace: cfg.LeaseNamespace}
	services := readable{resource: "services", namespace: cfg.Namespace}
	ends := readable{group: "discovery.k8s.io", resource: "endpointslices", namespace: cfg.Namespace}
	switches := readable{resource: "configmaps", namespace: cfg.Namespace, name: exposure.SettingsName}
	hosts := readable{resource: "configmaps", namespace: cfg.Namespace, name: names.ConfigMapName}
	requests := readable{group: "certificates.k8s.io", resource: "certificatesigningrequests"}
	return map[string][]readable{
		"domains":      {nodes, gateways},
		"gateways":     {nodes, gateways, leases, switches},
		"expose":       {nodes, gateways, services, ends, switches},
		"names":        {nodes, gateways, services, ends, switches, hosts},
		"settings":     {switches, services},
		"certificates": {requests},
	}
}

// rights knows what the controller may not read. What it needs to work as a whole it
// has by the chart; where somebody took a part of that away, only what needs the part
// is off.
type rights struct {
	reviews authorizationclient.SelfSubjectAccessReviewInterface
	needs   map[string][]readable // by reconciler that is wanted
	log     *slog.Logger
	off     *prometheus.GaugeVec
	refused chan struct{} // a cache was refused something

	mu  sync.Mutex
	now map[string]string // what each reconciler that is off lacks
}

func newRights(cfg Config, to *rest.Config) (*rights, error) {
	c, err := authorizationclient.NewForConfig(to)
	if err != nil {
		return nil, err
	}
	off, err := gauge("corax_controller_reconciler_off",
		"1 for a part of the controller that is off because it may not read a kind of objects.", "reconciler", "resource")
	if err != nil {
		return nil, err
	}
	needs := reads(cfg)
	maps.DeleteFunc(needs, func(name string, _ []readable) bool { return slices.Contains(cfg.Disable, name) })
	return &rights{
		reviews: c.SelfSubjectAccessReviews(), needs: needs, log: cfg.Log, off: off, refused: make(chan struct{}, 1),
	}, nil
}

// gauge registers a gauge as counter does.
func gauge(metric, help string, labels ...string) (*prometheus.GaugeVec, error) {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: metric, Help: help}, labels)
	err := metrics.Registry.Register(g)
	if known := (prometheus.AlreadyRegisteredError{}); errors.As(err, &known) {
		if old, ok := known.ExistingCollector.(*prometheus.GaugeVec); ok {
			return old, nil
		}
	}
	return g, err
}

// look asks anew, tells what has changed, and returns whether anything has. What
// cannot be asked stays as it was; it is allowed at first.
func (r *rights) look(ctx context.Context) (changed bool) {
	ctx, cancel := context.WithTimeout(ctx, rightsPatience)
	defer cancel()
	known := map[readable]bool{}
	now := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(r.needs)) {
		var lacks []string
		for _, what := range r.needs[name] {
			ok, asked := known[what]
			if !asked {
				var err error
				if ok, err = r.may(ctx, what); err != nil {
					if ctx.Err() == nil {
						r.log.Debug("what this account may read cannot be asked", "err", err)
					}
					return false
				}
				known[what] = ok
			}
			if !ok {
				lacks = append(lacks, what.String())
			}
		}
		if len(lacks) > 0 {
			now[name] = strings.Join(lacks, ", ")
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.now
	r.now = now
	r.tell(was, now)
	return !maps.Equal(was, now)
}

// tell says what has changed.
func (r *rights) tell(was, now map[string]string) {
	r.off.Reset()
	for _, name := range slices.Sorted(maps.Keys(r.needs)) {
		if lacks := now[name]; lacks != "" {
			r.off.WithLabelValues(name, lacks).Set(1)
			if was[name] != lacks {
				r.log.Error("a reconciler is off: this account may not list and watch what it reads", "reconciler", name, "resource", lacks)
			}
		} else if was[name] != "" {
			r.log.Info("a reconciler is on: this account may read what it lacked", "reconciler", name, "resource", was[name])
		}
	}
}

// may asks for the rights that a cache needs.
func (r *rights) may(ctx context.Context, what readable) (bool, error) {
	for _, verb := range []string{"list", "watch"} {
		a := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: what.group, Resource: what.resource, Namespace: what.namespace, Name: what.name, Verb: verb,
			},
		}}
		a, err := r.reviews.Create(ctx, a, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		if !a.Status.Allowed {
			return false, nil
		}
	}
	return true, nil
}

// lacks returns what a reconciler may not read; empty: it may run.
func (r *rights) lacks(name string) string {
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now[name]
}

// Ready says which reconcilers are off; nil: none is.
func (r *rights) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(r.now)) {
		errs = append(errs, fmt.Errorf("controller: %s is off: no right to list and watch %s", name, r.now[name]))
	}
	return errors.Join(errs...)
}

// watchFailed is told by caches why they cannot read.
func (r *rights) watchFailed(ctx context.Context, reflector *toolscache.Reflector, err error) {
	toolscache.DefaultWatchErrorHandler(ctx, reflector, err)
	if apierrors.IsForbidden(err) {
		select {
		case r.refused <- struct{}{}:
		default: // told already
		}
	}
}

// await returns when the rights are others than at the last look; false: ctx is done.
// It asks only while something is missing, or was refused.
func (r *rights) await(ctx context.Context) bool {
	for {
		again := make(<-chan time.Time) // never
		if r.Ready() != nil {
			again = time.After(rightsPeriod)
		}
		select {
		case <-ctx.Done():
			return false
		case <-again:
		case <-r.refused:
		}
		if r.look(ctx) {
			return true
		}
		if !pause(ctx, rightsPeriod) {
			return false
		}
	}
}

// event says on the CRD what is off, where people look for what is wrong with
// Gateways.
func (r *rights) event(g *guard) {
	if err := r.Ready(); err != nil {
		g.events.Eventf(gatewayCRD(), nil, corev1.EventTypeWarning, "ReconcilerOff", "ReadObjects", "%.900s", err.Error())
	}
}

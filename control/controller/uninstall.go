package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/kube/gateway"
)

// Uninstall removes what the controller made, and nothing else: node labels,
// Services with their EndpointSlices, its fields of raven-cfg and of the Gateways
// of people, ConfigMaps, Gateways, and the Leases. A hosts file that somebody else
// made gets the nodes' own addresses. It may be run again.
//
// So that nothing is made anew meanwhile, it scales the Deployment of that name in
// cfg.Namespace to zero (empty: none), and holds the leader's Lease. It returns
// when everything is gone, or with what is still there when ctx is done: cloud
// balancers take their time.
func Uninstall(ctx context.Context, cfg Config, deployment string) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	to, err := restConfig(cfg)
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	scheme, err := newScheme()
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	c, err := client.New(to, client.Options{Scheme: scheme, FieldOwner: name})
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	r := &removal{client: c, cfg: cfg, log: cfg.Log}
	if err := r.stopDeployment(ctx, deployment); err != nil {
		return fmt.Errorf("controller: stop the Deployment: %w", err)
	}
	identity, err := newIdentity()
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	l, err := newLock(to, cfg.Namespace, identity)
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	if err := r.alone(ctx, l); err != nil {
		return fmt.Errorf("controller: uninstall: %w", err)
	}
	return nil
}

const (
	// holdFor is how long the leader's Lease is Uninstall's after the last renewal.
	holdFor = leaseDuration
	// leaderWait bounds the wait for the leader's Lease: a controller that was
	// told to stop releases it, one that was killed lets it lapse.
	leaderWait = leaseDuration + shutdown + 10*time.Second
	// goneEvery is how often what is being deleted is looked at.
	goneEvery = time.Second
)

// removal removes; it reads past any cache.
type removal struct {
	client client.Client
	cfg    Config
	log    *slog.Logger
}

// all removes everything. What fails does not stop the rest, except that the
// Services stay while names lead to them.
func (r *removal) all(ctx context.Context) error {
	// Before the Services go, because no name may lead to an address that is given
	// to another Service next.
	if err := errors.Join(r.handBackHosts(ctx), r.deleteOwn(ctx, &corev1.ConfigMapList{})); err != nil {
		return err
	}
	err := errors.Join(
		r.unlabelNodes(ctx),
		r.freeGateways(ctx),
		r.deleteOwn(ctx, &corev1.ServiceList{}),
		r.deleteOwn(ctx, &discoveryv1.EndpointSliceList{}),
		r.clearSettings(ctx),
		r.deleteLeases(ctx),
	)
	if err != nil {
		return err
	}
	return errors.Join(r.gone(ctx, &gateway.GatewayList{}), r.gone(ctx, &corev1.ServiceList{}))
}

// alone removes everything while it holds the leader's Lease, which goes last.
func (r *removal) alone(ctx context.Context, l resourcelock.Interface) error {
	wait, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	if err := hold(wait, l, holdFor); err != nil {
		return err
	}
	err := holding(ctx, l, holdFor, r.all)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: r.cfg.Namespace, Name: name}}
	if errors.Is(err, errLostHold) {
		return err // it is somebody else's now
	}
	// Also after ctx is done, so that the next one need not wait.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewDeadline)
	defer cancel()
	return errors.Join(err, client.IgnoreNotFound(r.client.Delete(last, lease)))
}

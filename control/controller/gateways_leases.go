package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/controller/election"
)

const (
	// sweepPeriod is how often Leases are looked at, in memory: it adds to the
	// time of a failover.
	sweepPeriod = 250 * time.Millisecond
	// contactPeriod is how long the Leases' watch may say nothing before the API
	// server is asked for a sign, and contactTimeout how long that may take. When a
	// Lease should lapse it is asked at once.
	contactPeriod  = time.Second
	contactTimeout = 2 * time.Second
)

// watchLeases finds the Leases that lapsed, and keeps in touch with the API server:
// while it is away nobody can renew, so nothing lapses.
func (r *electorate) watchLeases(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.keepContact(ctx)
	}()
	defer func() { <-done }()
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if q := r.queue.get(); q != nil {
			for _, node := range r.tracker.Sweep() {
				r.addOf(ctx, q, node)
			}
		}
	}
}

// keepContact asks for a sign of the API server when renewals do not show it.
func (r *electorate) keepContact(ctx context.Context) {
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !r.tracker.Unsure(time.Now(), contactPeriod) {
			continue
		}
		if err := r.contact(ctx); err != nil && ctx.Err() == nil {
			r.log.Debug("no sign of the API server", "err", err)
		}
	}
}

// contact reads one Lease from the store, not from a cache.
func (r *electorate) contact(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, contactTimeout)
	defer cancel()
	var one coordinationv1.LeaseList
	err := r.api.List(ctx, &one, client.InNamespace(r.cfg.LeaseNamespace), client.Limit(1))
	if err == nil {
		r.tracker.Contact(time.Now())
	}
	return err
}

// ask reads a node's Lease from the API server, in case that the watch is behind.
func (r *electorate) ask(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, contactTimeout)
	defer cancel()
	l := &coordinationv1.Lease{}
	err := r.api.Get(ctx, client.ObjectKey{Namespace: r.cfg.LeaseNamespace, Name: node}, l)
	switch {
	case apierrors.IsNotFound(err):
		r.tracker.Forget(node)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s", contactTimeout)
	case err != nil:
		return err
	default:
		r.tracker.Observe(time.Now(), node, election.ReadLease(l))
	}
	return nil
}

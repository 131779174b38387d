package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
)

// leaseRole is what a node is among the candidates of its domain.
type leaseRole string

// The roles. The zero leaseRole keeps no Lease.
const (
	leaseNone      leaseRole = ""
	leaseCandidate leaseRole = "candidate"
	leaseActive    leaseRole = "active"
)

// term is how long a Lease lasts, and how often it is renewed.
func (r leaseRole) term() (duration, renew time.Duration) {
	if r == leaseActive {
		return 6 * time.Second, 2 * time.Second
	}
	return 30 * time.Second, 10 * time.Second
}

// roleIn returns what the node is in the first of the Gateways that list it. alone
// says that it keeps no Lease because there is no other candidate.
func roleIn(gateways []v1beta1.Gateway, node string) (role leaseRole, alone bool) {
	if len(gateways) == 0 {
		return leaseNone, false
	}
	g := &gateways[0]
	if !others(g, node) {
		return leaseNone, true
	}
	for i := range g.Status.ActiveEndpoints {
		if g.Status.ActiveEndpoints[i].NodeName == node {
			return leaseActive, false
		}
	}
	return leaseCandidate, false
}

// others reports whether a Gateway lists another node than this one.
func others(g *v1beta1.Gateway, node string) bool {
	for i := range g.Spec.Endpoints {
		if g.Spec.Endpoints[i].NodeName != node {
			return true
		}
	}
	return false
}

// carrying is whether a node can carry its domain's traffic.
type carrying struct {
	ok     bool
	reason string // why not
}

// Pace of the keeper beside the terms.
const (
	// leaseGap is the time between two writes at least: what flaps is written once.
	leaseGap = 500 * time.Millisecond
	// releaseTimeout bounds the last write.
	releaseTimeout = time.Second
	// stopped is why an agent that ends cannot carry.
	stopped = "the agent was stopped"
)

// leaser is what a keeper needs of the API server.
type leaser interface {
	patchLease(ctx context.Context, name string, patch []byte) error
	createLease(ctx context.Context, l *coordinationv1.Lease) error
	deleteLease(ctx context.Context, name string) error
}

// keeper keeps the Lease named after this node. run owns it.
type keeper struct {
	node     string
	api      leaser
	link     *link
	log      *slog.Logger
	random   func() float64
	carry    latest[carrying]
	haste    latest[bool]              // renew as often as an active node
	gateways latest[[]v1beta1.Gateway] // those that list the node
	wake     chan struct{}

	role    leaseRole // that was written last
	said    carrying  // likewise
	tried   time.Time // of the last write; zero: none with this role
	holding bool      // the Lease names this node
	kept    bool      // there is a Lease of ours
	removed bool      // there is none, and we have seen to that
}

func newKeeper(node string, api leaser, l *link, log *slog.Logger) *keeper {
	k := &keeper{node: node, api: api, link: l, log: log, random: rand.Float64, wake: make(chan struct{}, 1)}
	k.carry.wake, k.haste.wake, k.gateways.wake = k.wake, k.wake, k.wake
	return k
}

// run renews the Lease until ctx is done, and gives it up then, unless the agent
// goes on: the cause of the end has a method Continues that says so.
func (k *keeper) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			var end interface{ Continues() bool }
			if !errors.As(context.Cause(ctx), &end) || !end.Continues() {
				k.release(context.WithoutCancel(ctx))
			}
			return nil
		case <-k.wake:
		case <-timer.C:
		}
		if wait, ok := k.step(ctx, time.Now()); ok {
			timer.Reset(wait)
		}
	}
}

// step does what is due, and returns when to come back; false: only when something
// is new.
func (k *keeper) step(ctx context.Context, now time.Time) (time.Duration, bool) {
	gateways, ok := k.gateways.get()
	if !ok {
		return 0, false
	}
	role, alone := roleIn(gateways, k.node)
	if role == leaseNone {
		k.drop(ctx, alone)
		return 0, false
	}
	carry, ok := k.carry.get()
	if !ok {
		return 0, false
	}
	every := k.every(role)
	due := k.tried.Add(every - time.Duration(k.random()*float64(every)/10))
	if role != k.role || carry != k.said {
		due = k.tried.Add(leaseGap)
	}
	if now.Before(due) {
		return due.Sub(now), true
	}
	k.renew(ctx, now, role, carry)
	return every - time.Duration(k.random()*float64(every)/10), true
}

// every is how often the Lease is renewed at present.
func (k *keeper) every(role leaseRole) time.Duration {
	if haste, _ := k.haste.get(); haste {
		role = leaseActive
	}
	_, every := role.term()
	return every
}

// renew writes the Lease.
func (k *keeper) renew(ctx context.Context, now time.Time, role leaseRole, carry carrying) {
	duration, _ := role.term()
	every := k.every(role)
	if carry != k.said || !k.kept {
		k.log.Info("this node's Lease", "role", string(role), "carries", carry.ok, "reason", carry.reason)
	}
	k.role, k.said, k.tried = role, carry, now
	wctx, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	err := k.write(wctx, now, duration, carry)
	if err != nil && ctx.Err() != nil {
		return
	}
	if err == nil {
		k.kept, k.removed, k.holding = true, false, carry.ok
		k.link.leased(string(role))
	}
	k.link.renewed(err)
}

// write patches the Lease, or makes it.
func (k *keeper) write(ctx context.Context, now time.Time, duration time.Duration, carry carrying) error {
	l := k.lease(now, duration, carry)
	body, err := leasePatch(l)
	if err != nil {
		return err
	}
	err = k.api.patchLease(ctx, k.node, body)
	if apierrors.IsNotFound(err) {
		err = k.api.createLease(ctx, l)
	}
	return err
}

// lease is what the Lease should be.
func (k *keeper) lease(now time.Time, duration time.Duration, carry carrying) *coordinationv1.Lease {
	holder, seconds, renewed := k.node, int32(duration/time.Second), metav1.NewMicroTime(now)
	l := &coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Name: k.node},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &renewed},
	}
	if !carry.ok {
		holder = ""
		l.Annotations = map[string]string{v1beta1.AnnotationReason: clip(carry.reason)}
	}
	return l
}

// leasePatch is a merge patch that makes a Lease say what l says, and touches
// nothing else of it.
func leasePatch(l *coordinationv1.Lease) ([]byte, error) {
	var reason any // null removes
	if r, ok := l.Annotations[v1beta1.AnnotationReason]; ok {
		reason = r
	}
	b, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{v1beta1.AnnotationReason: reason}},
		"spec":     l.Spec,
	})
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	return b, nil
}

// drop removes the Lease of a node that should have none: one that lapsed would
// say that the node cannot carry, none at all says nothing.
func (k *keeper) drop(ctx context.Context, alone bool) {
	k.role, k.said, k.tried = leaseNone, carrying{}, time.Time{}
	if k.removed || !k.kept && !alone {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := k.api.deleteLease(ctx, k.node)
	if err != nil && !apierrors.IsForbidden(err) {
		k.log.Debug("this node's Lease could not be removed", "err", err)
		return // again when something is new
	}
	k.kept, k.removed, k.holding = false, true, false
	k.link.leased("")
}

// release says that this node carries no longer, so that another takes over at
// once.
func (k *keeper) release(ctx context.Context) {
	if !k.holding {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	duration, _ := k.role.term()
	if err := k.write(ctx, time.Now(), duration, carrying{reason: stopped}); err != nil {
		k.log.Info("this node's Lease could not be given up", "err", err)
	}
}

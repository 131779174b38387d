package controller

import (
	"context"
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// renewPeriod is how often the leader writes its Lease.
const renewPeriod = 2 * time.Second

// lock is a Lease that is read as often as the leader election asks for, so that
// a hand-over takes less than a second, but renewed only every renewPeriod.
type lock struct {
	resourcelock.Interface
	now func() time.Time

	// Used by the one goroutine of the leader election.
	holder string
	wrote  time.Time
}

// newIdentity names this process among all that may hold the Lease.
func newIdentity() (string, error) {
	host, err := os.Hostname()
	return fmt.Sprintf("%s_%s", host, uuid.NewUUID()), err
}

func newLock(to *rest.Config, namespace, identity string) (resourcelock.Interface, error) {
	to = rest.CopyConfig(to)
	// One request that hangs must not cost the leadership.
	to.Timeout = renewDeadline / 2
	leases, err := coordinationv1client.NewForConfig(to)
	if err != nil {
		return nil, err
	}
	return &lock{now: time.Now, Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name},
		Client:     leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}}, nil
}

// Create makes the Lease.
func (l *lock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return l.note(r, l.Interface.Create(ctx, r))
}

// Update writes the record, unless it only renews one that was written lately.
func (l *lock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if r.HolderIdentity != "" && r.HolderIdentity == l.holder && l.now().Sub(l.wrote) < renewPeriod {
		return nil
	}
	return l.note(r, l.Interface.Update(ctx, r))
}

func (l *lock) note(r resourcelock.LeaderElectionRecord, err error) error {
	l.holder, l.wrote = r.HolderIdentity, l.now()
	if err != nil {
		l.holder = ""
	}
	return err
}

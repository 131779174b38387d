package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// errBusy says that another controller did not let go.
var errBusy = errors.New("another controller holds the leader's Lease; stop it first")

// errLostHold says that somebody took the Lease, or that it could not be renewed in
// time.
var errLostHold = errors.New("the leader's Lease was lost")

// holding runs do while it holds the leader's Lease, which it renews: whoever is
// killed in the middle is waited for no longer than d. The Lease is not released.
func holding(ctx context.Context, l resourcelock.Interface, d time.Duration, do func(context.Context) error) error {
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	var group sync.WaitGroup
	ended := make(chan struct{})
	group.Go(func() {
		tick := time.NewTicker(d / 3)
		defer tick.Stop()
		for good := time.Now(); ; {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			switch ok, err := renew(ctx, l); {
			case ok:
				good = time.Now()
			case err == nil || time.Since(good) > d-d/3:
				lost(errLostHold)
				return
			}
		}
	})
	err := do(ctx)
	close(ended)
	group.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, errLostHold) {
		return errors.Join(cause, err)
	}
	return err
}

// renew writes the present time into the Lease; false, and no error, when it is
// somebody else's.
func renew(ctx context.Context, l resourcelock.Interface) (bool, error) {
	record, _, err := l.Get(ctx)
	if err != nil {
		return false, err
	}
	if record.HolderIdentity != l.Identity() {
		return false, nil
	}
	record.RenewTime = metav1.Now()
	if err := l.Update(ctx, *record); err != nil {
		return false, err
	}
	return true, nil
}

// hold takes the leader's Lease for d, without renewing it. It waits until the one
// who has it releases it or lets it lapse, which is judged by our own clock alone.
func hold(ctx context.Context, l resourcelock.Interface, d time.Duration) error {
	tick := time.NewTicker(retryPeriod)
	defer tick.Stop()
	var seen []byte
	var since time.Time
	holder := ""
	for {
		record, raw, err := l.Get(ctx)
		absent := apierrors.IsNotFound(err)
		switch {
		case err == nil:
			holder = record.HolderIdentity
			if !bytes.Equal(raw, seen) {
				seen, since = raw, time.Now()
			}
		case !absent && holder == "":
			return err
		}
		lapsed := err == nil && time.Since(since) > time.Duration(record.LeaseDurationSeconds)*time.Second
		if absent || err == nil && holder == "" || lapsed {
			if taken, err := take(ctx, l, record, d); taken || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%s)", errBusy, holder)
		case <-tick.C:
		}
	}
}

// take writes our name into the Lease; a race that we lose is no error.
func take(ctx context.Context, l resourcelock.Interface, was *resourcelock.LeaderElectionRecord, d time.Duration) (bool, error) {
	now := metav1.Now()
	is := resourcelock.LeaderElectionRecord{
		HolderIdentity: l.Identity(), LeaseDurationSeconds: int(d.Seconds()), AcquireTime: now, RenewTime: now,
	}
	var err error
	if was == nil {
		err = l.Create(ctx, is)
	} else {
		is.LeaderTransitions = was.LeaderTransitions + 1
		err = l.Update(ctx, is)
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	return err == nil, err
}

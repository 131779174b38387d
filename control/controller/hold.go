package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// errBusy says that another controller did not let go.
var errBusy = errors.New("another controller holds the leader's Lease; stop it first")

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

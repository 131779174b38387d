package controller

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// lease is a Lease in memory.
type lease struct {
	resourcelock.Interface
	mu     sync.Mutex // only where it is held while something else is done
	record *resourcelock.LeaderElectionRecord
	writes int
	fail   error
}

func (l *lease) Identity() string { return "me" }

func (l *lease) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.record == nil {
		return nil, nil, apierrors.NewNotFound(schema.GroupResource{}, "")
	}
	r := *l.record
	raw, err := json.Marshal(r)
	return &r, raw, err
}

func (l *lease) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return l.Update(ctx, r)
}

func (l *lease) Update(_ context.Context, r resourcelock.LeaderElectionRecord) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes++
	if l.fail == nil {
		l.record = &r
	}
	return l.fail
}

// TestLockWritesSeldom checks that a renewal is written only so often, and all
// else at once.
func TestLockWritesSeldom(t *testing.T) {
	now := time.Unix(1000, 0)
	inner := &lease{}
	l := &lock{Interface: inner, now: func() time.Time { return now }}
	for _, step := range []struct {
		name   string
		after  time.Duration
		holder string
		create bool
		fail   error
		writes int
	}{
		{"taken", 0, "me", true, nil, 1},
		{"renewed too soon", 400 * time.Millisecond, "me", false, nil, 0},
		{"still", 1500 * time.Millisecond, "me", false, nil, 0},
		{"renewed", 100 * time.Millisecond, "me", false, nil, 1},
		{"a write that fails", 2 * time.Second, "me", false, errors.New("no"), 1},
		{"is tried again at once", 400 * time.Millisecond, "me", false, nil, 1},
		{"released", 100 * time.Millisecond, "", false, nil, 1},
		{"released again", 100 * time.Millisecond, "", false, nil, 1},
		{"taken again", 100 * time.Millisecond, "me", false, nil, 1},
	} {
		now = now.Add(step.after)
		inner.writes, inner.fail = 0, step.fail
		write := l.Update
		if step.create {
			write = l.Create
		}
		if err := write(t.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: step.holder}); !errors.Is(err, step.fail) {
			t.Errorf("%s: %v", step.name, err)
		}
		if inner.writes != step.writes {
			t.Errorf("%s: %d writes", step.name, inner.writes)
		}
	}
}

func TestHold(t *testing.T) {
	held := func(by string, seconds int) *resourcelock.LeaderElectionRecord {
		return &resourcelock.LeaderElectionRecord{HolderIdentity: by, LeaseDurationSeconds: seconds, LeaderTransitions: 4}
	}
	for _, tt := range []struct {
		name   string
		record *resourcelock.LeaderElectionRecord
		within time.Duration // none: it must fail
	}{
		{"there is none", nil, time.Millisecond},
		{"released", held("", 1), time.Millisecond},
		{"lapses", held("other", 15), 16 * time.Second},
		{"held", held("other", 60), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &lease{record: tt.record}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				start := time.Now()
				err := hold(ctx, l, time.Minute)
				if tt.within == 0 {
					if !errors.Is(err, errBusy) || !strings.Contains(err.Error(), "other") {
						t.Errorf("%v", err)
					}
					return
				}
				if took := time.Since(start); err != nil || took > tt.within {
					t.Fatalf("%v after %v", err, took)
				}
				if l.record.HolderIdentity != "me" || l.record.LeaseDurationSeconds != 60 {
					t.Errorf("%+v", l.record)
				}
			})
		})
	}
	t.Run("a race that is lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := &lease{record: held("", 1), fail: apierrors.NewConflict(schema.GroupResource{}, "", errors.New("no"))}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if err := hold(ctx, l, time.Minute); !errors.Is(err, errBusy) || l.writes < 2 {
				t.Errorf("%v after %d writes", err, l.writes)
			}
		})
	})
}

// TestHolding: a Lease that is held for long is renewed, and what is done ends when
// somebody else has it.
func TestHolding(t *testing.T) {
	const d = 15 * time.Second
	for _, tt := range []struct {
		name   string
		spoil  func(*lease)
		within time.Duration // that it takes
		lost   bool
	}{
		{"well", func(*lease) {}, 5 * time.Minute, false},
		{"somebody else's", func(l *lease) { l.record = &resourcelock.LeaderElectionRecord{HolderIdentity: "other"} }, time.Minute + d, true},
		{"not written any more", func(l *lease) { l.fail = errors.New("no") }, time.Minute + d, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &lease{}
				if err := hold(t.Context(), l, d); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				err := holding(t.Context(), l, d, func(ctx context.Context) error {
					for range 60 {
						time.Sleep(time.Second)
						r, _, _ := l.Get(ctx)
						if age := time.Since(r.RenewTime.Time); age > d/2 {
							t.Errorf("renewed %v ago", age)
						}
					}
					l.mu.Lock()
					tt.spoil(l)
					l.mu.Unlock()
					select {
					case <-ctx.Done():
					case <-time.After(4 * time.Minute):
					}
					return nil
				})
				if took := time.Since(start); errors.Is(err, errLostHold) != tt.lost || !tt.lost && err != nil || took > tt.within {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

const (
	// againAfter is the pause before the reconcilers start again. What the last
	// ones had under way was canceled; it ends meanwhile.
	againAfter = time.Second
	// askEvery is how often an API server that is away is asked for.
	askEvery = time.Second
)

// Run reconciles until ctx is done, and returns nil then. An API server that goes
// away ends nothing: when it is back, the reconcilers start anew with fresh caches,
// so that nothing is decided by what they knew before. Run returns an error when
// the configuration is wrong or an address is taken.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	to, err := restConfig(cfg)
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	// It stays the same after a break, so that we need not wait for our own
	// Lease to lapse.
	identity, err := newIdentity()
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	h, err := newHealth(cfg.HealthAddr)
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	metrics, err := newMeter(cfg.MetricsAddr)
	if err != nil {
		h.close()
		return fmt.Errorf("controller: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.Run(ctx) })
	group.Go(func() error { return metrics.Run(ctx) })
	group.Go(func() error { return runManagers(ctx, cfg, to, identity, h) })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	return nil
}

// runManagers runs one manager after the other.
func runManagers(ctx context.Context, cfg Config, to *rest.Config, identity string, h *health) error {
	r, err := newRights(cfg, to)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		if !awaitAPI(ctx, cfg, to) {
			return nil
		}
		r.look(ctx)
		m, g, err := newManager(cfg, to, identity, r)
		if err == nil {
			h.Watch(func() error { return errors.Join(g.Ready(), r.Ready()) })
			r.event(g)
			var moved bool
			moved, err = runManager(ctx, m, r)
			h.Watch(errNoAPI)
			if moved && err == nil {
				cfg.Log.Info("the rights of this account have changed: the reconcilers start again")
				continue
			}
		} else if first {
			return err
		}
		if ctx.Err() != nil {
			return err
		}
		cfg.Log.Error("the reconcilers stopped, and start again", "err", err)
		if !pause(ctx, againAfter) {
			return nil
		}
	}
}

// runManager runs one until ctx is done, it fails, or the account's rights move.
func runManager(ctx context.Context, m manager.Manager, r *rights) (moved bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		if moved = r.await(ctx); moved {
			cancel()
		}
	})
	err = m.Start(ctx)
	cancel()
	watch.Wait()
	return moved, err
}

// awaitAPI returns as soon as the API server answers; false when ctx is done.
func awaitAPI(ctx context.Context, cfg Config, to *rest.Config) bool {
	to = rest.CopyConfig(to)
	to.Timeout = renewDeadline / 2
	asks, err := discovery.NewDiscoveryClientForConfig(to)
	if err != nil {
		cfg.Log.Error("no way to ask the API server", "err", err)
		return ctx.Err() == nil
	}
	for told := false; ctx.Err() == nil; {
		_, err := asks.RESTClient().Get().AbsPath("/version").DoRaw(ctx)
		if err == nil {
			return true
		}
		if !told {
			cfg.Log.Warn("waiting for the API server", "err", err)
			told = true
		}
		pause(ctx, askEvery)
	}
	return false
}

// pause waits; it returns false when ctx is done first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

//go:build linux

package lab

import (
	"context"
	"fmt"
	"time"
)

// poll calls f at once and then every interval until it returns nil. When ctx
// ends first, the error says so and wraps f's last one.
func poll(ctx context.Context, interval time.Duration, f func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last error
	for {
		err := f()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // else f only says that ctx has ended
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

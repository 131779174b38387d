//go:build !linux

package hostnet

import (
	"context"
	"net/netip"
)

// DefaultRouters returns nil on this system.
func DefaultRouters() []netip.Addr { return nil }

// WatchNetwork blocks until ctx is done on this system; it calls nothing.
func WatchNetwork(ctx context.Context, ignore string, changed func()) error {
	<-ctx.Done()
	return nil
}

//go:build !linux

package hostnet

import (
	"context"
	"errors"
	"fmt"

	"corax/dataplane"
)

// TUN is not available on this system.
type TUN struct{ count tunCounters }

// OpenTUN checks cfg and fails with errors.ErrUnsupported.
func OpenTUN(cfg TUNConfig) (*TUN, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("hostnet: open TUN: %w", err)
	}
	return nil, fmt.Errorf("hostnet: open TUN %s: %w", cfg.Name, errors.ErrUnsupported)
}

// Run fails.
func (t *TUN) Run(context.Context) error { return errors.ErrUnsupported }

// Send drops the batch.
func (t *TUN) Send(batch []dataplane.Packet) { t.count.unknown.Add(uint64(len(batch))) }

// Name returns the empty string.
func (t *TUN) Name() string { return "" }

// Index returns zero.
func (t *TUN) Index() int { return 0 }

// MTU returns zero.
func (t *TUN) MTU() int { return 0 }

// SetMTU fails.
func (t *TUN) SetMTU(mtu int) error { return errors.Join(checkTUNMTU(mtu), errors.ErrUnsupported) }

// Counters returns the counters of the device.
func (t *TUN) Counters() []dataplane.Counter { return t.count.list() }

// Close does nothing.
func (t *TUN) Close() error { return nil }

// Remove does nothing.
func (t *TUN) Remove() error { return nil }

//go:build !linux

package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Host makes the host as the plan wants it. Only Linux has one.
type Host struct{}

// New fails with errors.ErrUnsupported on this system.
func New(cfg Config) (*Host, error) {
	return nil, fmt.Errorf("hostnet: %w", errors.ErrUnsupported)
}

// Apply fails with errors.ErrUnsupported on this system.
func (h *Host) Apply(ctx context.Context, s State) ([]Problem, error) {
	return nil, fmt.Errorf("hostnet: apply: %w", errors.ErrUnsupported)
}

// Hold fails with errors.ErrUnsupported on this system.
func (h *Host) Hold(ctx context.Context, s State) ([]Problem, error) {
	return nil, fmt.Errorf("hostnet: hold: %w", errors.ErrUnsupported)
}

// Clear does nothing on this system.
func (h *Host) Clear() error { return nil }

// Close does nothing on this system.
func (h *Host) Close() error { return nil }

// Watch fails with errors.ErrUnsupported on this system.
func (h *Host) Watch(ctx context.Context, changed func()) error {
	return fmt.Errorf("hostnet: watch: %w", errors.ErrUnsupported)
}

// HostSource returns no address on this system.
func (h *Host) HostSource(v6 bool) (addr netip.Addr, why string) {
	return netip.Addr{}, "not supported on this system"
}

// Probe returns nothing on this system.
func Probe() []Problem { return nil }

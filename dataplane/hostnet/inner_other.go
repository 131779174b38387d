//go:build !linux

package hostnet

import (
	"errors"
	"fmt"
	"os"
)

// OpenInner fails.
func OpenInner(cfg InnerConfig) (*os.File, error) {
	return nil, fmt.Errorf("hostnet: set up the namespace: %w", errors.Join(cfg.check(), errors.ErrUnsupported))
}

// AttachTUN fails.
func AttachTUN(cfg TUNConfig, _ *os.File) (*TUN, error) {
	return nil, fmt.Errorf("hostnet: attach TUN: %w", errors.Join(cfg.check(), errors.ErrUnsupported))
}

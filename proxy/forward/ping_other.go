//go:build !linux

package forward

import (
	"errors"
	"fmt"
	"net/netip"
)

// errNoPing says that this process may not have an ICMP socket.
var errNoPing = errors.New("no unprivileged ICMP socket")

func openPing(netip.Addr) (socket, error) {
	return nil, fmt.Errorf("%w: %w", errNoPing, errors.ErrUnsupported)
}

func probePing() error { return fmt.Errorf("%w: %w", errNoPing, errors.ErrUnsupported) }

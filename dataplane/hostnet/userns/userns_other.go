//go:build !linux

package userns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"corax/dataplane/hostnet"
)

// Host is the network namespace of a child user namespace. Only Linux has them.
type Host struct{}

func unsupported() error { return fmt.Errorf("userns: %w", errors.ErrUnsupported) }

// Enter fails with errors.ErrUnsupported on this system.
func Enter(Config) (*Host, *hostnet.TUN, error) { return nil, nil, unsupported() }

// IsHelper reports false on this system.
func IsHelper() bool { return false }

// Serve fails with errors.ErrUnsupported on this system.
func Serve(*slog.Logger) error { return unsupported() }

// Apply fails with errors.ErrUnsupported on this system.
func (h *Host) Apply(context.Context, hostnet.State) ([]hostnet.Problem, error) {
	return nil, unsupported()
}

// Prefixes fails with errors.ErrUnsupported on this system.
func (h *Host) Prefixes() ([]netip.Prefix, error) { return nil, unsupported() }

// Watch fails with errors.ErrUnsupported on this system.
func (h *Host) Watch(context.Context, func()) error { return unsupported() }

// WaitEmpty waits for ctx on this system.
func (h *Host) WaitEmpty(ctx context.Context) bool {
	<-ctx.Done()
	return false
}

// DialTCP fails with errors.ErrUnsupported on this system.
func (h *Host) DialTCP(context.Context, netip.AddrPort) (net.Conn, error) { return nil, unsupported() }

// DialUDP fails with errors.ErrUnsupported on this system.
func (h *Host) DialUDP(context.Context, netip.AddrPort) (net.Conn, error) { return nil, unsupported() }

// DialPing fails with errors.ErrUnsupported on this system.
func (h *Host) DialPing(context.Context, netip.Addr) (net.Conn, error) { return nil, unsupported() }

// ListenUDP fails with errors.ErrUnsupported on this system.
func (h *Host) ListenUDP(bool) (net.PacketConn, error) { return nil, unsupported() }

// Close does nothing on this system.
func (h *Host) Close() error { return nil }

// Leave does nothing on this system.
func (h *Host) Leave() {}

// String returns the empty string on this system.
func (h *Host) String() string { return "" }

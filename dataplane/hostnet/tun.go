package hostnet

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"corax/dataplane"
)

// TUNConfig says which TUN to open.
type TUNConfig struct {
	// Log takes state changes, for example that the kernel refused an
	// offload; nil means none.
	Log *slog.Logger
	// Name of the device, at most 15 bytes.
	Name string
	// MTU in bytes; zero means dataplane.DefaultMTU.
	MTU int
	// Receive takes what the kernel sends out through the device, in batches
	// of at most 128 packets, from the goroutine of [TUN.Run].
	Receive dataplane.Sender
}

func (c *TUNConfig) check() error {
	const maxName = 15 // IFNAMSIZ without the final zero
	if c.Name == "" || len(c.Name) > maxName {
		return fmt.Errorf("device name %q: want 1 to %d bytes", c.Name, maxName)
	}
	for _, r := range c.Name {
		// '%' would make the kernel choose a number, '/' and ':' it refuses.
		if r <= ' ' || r > '~' || r == '/' || r == ':' || r == '%' {
			return fmt.Errorf("device name %q: character %q is not allowed", c.Name, r)
		}
	}
	if c.Receive == nil {
		return errors.New("no receiver for packets")
	}
	if c.MTU == 0 {
		c.MTU = dataplane.DefaultMTU
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return checkTUNMTU(c.MTU)
}

// checkTUNMTU refuses an MTU with which the kernel would switch IPv6 off.
func checkTUNMTU(mtu int) error {
	if mtu < dataplane.MinMTU6 || mtu > 65535 {
		return fmt.Errorf("MTU %d: want %d to 65535", mtu, dataplane.MinMTU6)
	}
	return nil
}

// tunCounters are what [TUN.Counters] shows.
type tunCounters struct {
	readPackets, readBytes, readSuper    atomic.Uint64
	writePackets, writeBytes, writeSuper atomic.Uint64
	fallback                             atomic.Uint64

	// Drops, in packets.
	malformed, unsupported       atomic.Uint64 // read
	full, refused, down, unknown atomic.Uint64 // written
}

func (c *tunCounters) list() []dataplane.Counter {
	const drop = "tun_drop_total"
	return []dataplane.Counter{
		{Name: "tun_read_packets_total", Value: c.readPackets.Load()},
		{Name: "tun_read_bytes_total", Value: c.readBytes.Load()},
		{Name: "tun_read_super_total", Value: c.readSuper.Load()},
		{Name: "tun_write_packets_total", Value: c.writePackets.Load()},
		{Name: "tun_write_bytes_total", Value: c.writeBytes.Load()},
		{Name: "tun_write_super_total", Value: c.writeSuper.Load()},
		{Name: "tun_gso_fallback_total", Value: c.fallback.Load()},
		{Name: drop, Reason: "malformed", Value: c.malformed.Load()},
		{Name: drop, Reason: "unsupported_gso", Value: c.unsupported.Load()},
		{Name: drop, Reason: "queue_full", Value: c.full.Load()},
		{Name: drop, Reason: "refused", Value: c.refused.Load()},
		{Name: drop, Reason: "down", Value: c.down.Load()},
		{Name: drop, Reason: "write_failed", Value: c.unknown.Load()},
	}
}

package wg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.zx2c4.com/wireguard/device"
)

// countedLogs are the messages of wireguard-go that tell of one dropped packet
// and have no other trace. They are counted instead of logged: anybody on the
// Internet can cause some of them at any rate.
func countedLogs() map[string]drop {
	return map[string]drop{
		"IPv4 packet with disallowed source address from %v":          dropSource,
		"IPv6 packet with disallowed source address from %v":          dropSource,
		"Packet with invalid IP version from %v":                      dropInner,
		"Received packet with invalid mac1":                           dropMAC1,
		"Received invalid initiation message from %s":                 dropInitiation,
		"Received invalid response message from %s":                   dropResponse,
		"%v - ConsumeMessageInitiation: handshake replay @ %v":        dropReplay,
		"%v - ConsumeMessageInitiation: handshake flood":              dropFlood,
		"Received message with unknown type":                          dropUnknown,
		"Received packet with unknown IP version":                     dropNoPeer,
		"%v - Receiving keepalive packet":                             dropCount,
		"%v - Sending keepalive packet":                               dropCount,
		"Sending cookie response for denied handshake message for %v": dropCount,
	}
}

// newLogger passes wireguard-go's messages to log, and takes the packets whose
// drop they tell out of the window in.
func newLogger(log *slog.Logger, d *drops, in *window) *device.Logger {
	counted := countedLogs()
	return &device.Logger{
		Verbosef: func(format string, args ...any) {
			if why, ok := counted[format]; ok {
				if why < dropCount {
					d.addTold(why)
				}
				if why == dropSource || why == dropInner {
					in.take(1)
				}
				return
			}
			if log.Enabled(context.Background(), slog.LevelDebug) {
				log.Debug("wireguard", "detail", fmt.Sprintf(format, args...))
			}
		},
		Errorf: func(format string, args ...any) { logError(log, format, args) },
	}
}

// logError leaves out what a user API client sent: a malformed request may hold
// keys.
func logError(log *slog.Logger, format string, args []any) {
	if format == "invalid UAPI operation: %v" {
		log.Warn("user API request refused")
		return
	}
	for _, a := range args {
		err, ok := a.(error)
		if !ok {
			continue
		}
		if errors.Is(err, errNoPath) {
			return // counted
		}
		var ipc *device.IPCError
		if errors.As(err, &ipc) {
			log.Warn("user API request failed", "code", ipc.ErrorCode())
			return
		}
	}
	log.Warn("wireguard", "detail", fmt.Sprintf(format, args...))
}

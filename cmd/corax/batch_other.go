//go:build !linux

package main

import (
	"context"
	"log/slog"
)

// batchWhileBusy does nothing here.
func batchWhileBusy(context.Context, *slog.Logger) error { return nil }

package proxytest

import (
	"context"
	"testing"
	"time"
)

// Run has run run until the test ends, and fails the test when that returns an error, or
// does not end within ten seconds. It is joined before what was cleaned up for earlier.
func Run(t testing.TB, run func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
}

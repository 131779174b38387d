//go:build linux

package kube_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

// runController runs `corax controller` within the test, with the rights of an
// administrator, until stop or the end of the test; change, when not nil, changes
// its configuration. It does not serve metrics and health.
func runController(t *testing.T, c *cluster.Cluster, change func(*controller.Config)) (stop func() error) {
	t.Helper()
	cfg := controller.Config{Kubeconfig: c.Kubeconfig(t, c.Config()), LeaderElect: true, Log: testLog(t)}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- controller.Run(ctx, cfg) }()
	stop = func() error {
		cancel()
		select {
		case err := <-ended:
			ended <- nil // for a second call
			return err
		case <-time.After(30 * time.Second):
			t.Error("the controller does not end")
			return nil
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("controller: %v", err)
		}
	})
	return stop
}

// testLog shows log lines with the test's.
func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// only is the configuration's Disable that leaves some reconcilers on.
func only(names ...string) []string {
	return slices.DeleteFunc(controller.Reconcilers(), func(name string) bool { return slices.Contains(names, name) })
}

// controllerWrites are the requests of a controller that changed something since a
// mark, but for the leader's Lease, events, and questions about its rights.
func controllerWrites(t *testing.T, c *cluster.Cluster, since cluster.Mark) []cluster.Write {
	t.Helper()
	return c.Writes(t, since, func(w cluster.Write) bool {
		return strings.HasPrefix(w.Agent, "corax-controller") && w.Resource != "leases" && w.Resource != "events" && w.Resource != "selfsubjectaccessreviews"
	})
}

//go:build linux

package proxy_test

import "testing"

// TestProxy goes through all that proxy mode is for, in one world.
func TestProxy(t *testing.T) {
	w := newWorld(t)
	t.Run("kubectl", w.testKubectl)
	t.Run("top", w.testTop)
	t.Run("prometheus", w.testPrometheus)
	t.Run("termination", w.testTermination)
	t.Run("doctor", w.testDoctor)
	t.Run("stall", w.testStall)
	t.Run("connections", w.testConnections)
	t.Run("path change", w.testPathChange)
	t.Run("gateway death", w.testGatewayDeath)
	t.Run("hub death", w.testHubDeath)
	t.Run("egress selector", w.testEgress)
}

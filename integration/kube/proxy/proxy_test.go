//go:build linux

package proxy_test

import (
	"os"
	"testing"
)

// soakEnv asks for the long tests.
const soakEnv = "CORAX_SOAK"

// TestProxy goes through all that proxy mode is for, in one world.
func TestProxy(t *testing.T) {
	w := newWorld(t)
	t.Run("kubectl", w.testKubectl)
	t.Run("protocols", w.testProtocols)
	t.Run("streams", w.testStreams)
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

// TestSoakConnections opens and closes more of them.
func TestSoakConnections(t *testing.T) {
	if os.Getenv(soakEnv) == "" {
		t.Skip("a long test: " + soakEnv + "=1 runs it")
	}
	w := newWorld(t)
	w.testConnections(t)
}

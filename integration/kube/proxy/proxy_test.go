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
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"kubectl", w.testKubectl},
		{"protocols", w.testProtocols},
		{"streams", w.testStreams},
		{"top", w.testTop},
		{"prometheus", w.testPrometheus},
		{"termination", w.testTermination},
		{"doctor", w.testDoctor},
		{"stall", w.testStall},
		{"connections", w.testConnections},
		{"path change", w.testPathChange},
		{"gateway death", w.testGatewayDeath},
		{"hub death", w.testHubDeath},
		{"egress selector", w.testEgress},
	} {
		if !t.Run(part.name, part.test) {
			w.failed = append(w.failed, part.name)
		}
	}
}

// TestSoakConnections opens and closes more of them.
func TestSoakConnections(t *testing.T) {
	if os.Getenv(soakEnv) == "" {
		t.Skip("a long test: " + soakEnv + "=1 runs it")
	}
	w := newWorld(t)
	w.testConnections(t)
}

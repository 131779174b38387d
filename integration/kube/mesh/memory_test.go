//go:build linux

package mesh_test

import (
	"os"
	"testing"
	"time"
)

// idleMemory is what an agent of a cluster may have resident at rest, in bytes.
const idleMemory = 40 << 20

// TestSoakIdle: agents with the profile of 64 MB are small at rest.
func TestSoakIdle(t *testing.T) {
	if os.Getenv("CORAX_SOAK") == "" {
		t.Skip("CORAX_SOAK is not set, and it takes minutes until agents are at rest")
	}
	w := newWorld(t)
	small := []string{"edge-a-1", "edge-c-gw"} // a node, and a gateway node
	for _, name := range small {
		a := w.Agent(name)
		a.SetArgs("--memory-profile", "64")
		if err := a.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-time.After(150 * time.Second):
	case <-t.Context().Done():
	}
	for _, name := range small {
		n, err := rss(w.Agent(name).Process().PID())
		if err != nil {
			t.Error(err)
		}
		t.Logf("the agent of %s has %d KB", name, n>>10)
		if n > idleMemory {
			t.Errorf("the agent of %s has %d bytes resident, want at most %d", name, n, idleMemory)
		}
	}
	w.waitWhole(t)
}

package control_test

import (
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/crypto/blake2s"

	"corax/control"
)

// TestHomeHash fixes the hash: agents of different versions must agree.
func TestHomeHash(t *testing.T) {
	node, active := "node-1", []string{"gw-a", "gw-b", "gw-c"}
	var best, top string
	for _, a := range active {
		h := blake2s.Sum256([]byte(node + "\x00" + a))
		if s := hex.EncodeToString(h[:]); s > top {
			best, top = a, s
		}
	}
	if got := control.Home(node, active); got != best {
		t.Errorf("Home = %s, want %s", got, best)
	}
	slices.Reverse(active)
	if got := control.Home(node, active); got != best {
		t.Errorf("in another order Home = %s, want %s", got, best)
	}
	if got := control.Home(node, nil); got != "" {
		t.Errorf("without endpoints Home = %q", got)
	}
}

// TestHomeMovesLittle checks that a lost endpoint moves only its own nodes, and
// that the nodes spread.
func TestHomeMovesLittle(t *testing.T) {
	active := []string{"gw-a", "gw-b", "gw-c"}
	count := map[string]int{}
	for i := range 300 {
		node := fmt.Sprintf("node-%d", i)
		before := control.Home(node, active)
		count[before]++
		after := control.Home(node, active[:2])
		if before != "gw-c" && after != before {
			t.Errorf("%s moved from %s to %s", node, before, after)
		}
	}
	for _, name := range active {
		if count[name] < 60 {
			t.Errorf("%s has %d of 300 nodes", name, count[name])
		}
	}
}

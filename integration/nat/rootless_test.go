//go:build linux

package nat_test

import (
	"testing"

	"corax/integration/lab"
)

// TestRootlessPairs: two rootless gateway nodes behind NATs, between which a path
// becomes direct, and two that stay relayed. What their pods exchange goes by SOCKS5
// on one side, and by sockets of the agent on the other. All tests of this package do
// the same with CORAX_DATAPATH=netstack; TestSoakCases of the rootless suite runs them.
func TestRootlessPairs(t *testing.T) {
	t.Setenv(lab.DatapathEnv, "netstack")
	kinds := make(map[string]lab.Kind)
	for _, k := range lab.Kinds() {
		kinds[k.Name] = k
	}
	for _, names := range [][2]string{{"address-restricted", "port-restricted"}, {"random", "random"}} {
		a, b := kinds[names[0]], kinds[names[1]]
		if a.Name == "" || b.Name == "" {
			t.Fatalf("no such kinds: %q", names)
		}
		t.Run(a.Name+" - "+b.Name, func(t *testing.T) {
			r := new(pairResult)
			runPair(t, pairOf(a, b), r)
			t.Log(r)
		})
	}
}

//go:build linux

package tunnel_test

import (
	"testing"

	"corax/integration/lab"
)

// TestRootlessUnusableNodes is TestUnusableNodes with edges whose gateway nodes are rootless.
func TestRootlessUnusableNodes(t *testing.T) {
	t.Setenv(lab.DatapathEnv, "netstack")
	TestUnusableNodes(t)
}

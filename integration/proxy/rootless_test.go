//go:build linux

package proxy_test

import (
	"testing"

	"corax/integration/lab"
)

// TestRootlessDirectory is TestDirectory with edges whose gateway nodes are rootless:
// proxy mode needs neither a TUN nor privileges.
func TestRootlessDirectory(t *testing.T) {
	t.Setenv(lab.DatapathEnv, "netstack")
	TestDirectory(t)
}

//go:build linux

package proxy_test

import (
	"os"
	"testing"

	"corax/integration/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

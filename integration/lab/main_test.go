//go:build linux

package lab

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		os.Exit(crashMain())
	}
	os.Exit(Main(m))
}

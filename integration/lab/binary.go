//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// BinaryEnv names the environment variable with the path of the corax binary to
// test. When it is empty the lab builds one.
const BinaryEnv = "CORAX_BIN"

// Corax returns the path of the corax binary: $CORAX_BIN, or one built from
// the module of the working directory, once per process.
func Corax() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		path, err := filepath.Abs(path)
		if err != nil {
			return "", fmt.Errorf("lab: %w", err)
		}
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("lab: %s: %w", BinaryEnv, err)
		}
		return path, nil
	}
	path, err := buildCorax()
	if err != nil {
		return "", fmt.Errorf("lab: build corax: %w", err)
	}
	return path, os.Setenv(BinaryEnv, path) // for the next call
}

// buildCorax builds into the user's cache directory, by way of a name of our
// own: several test processes may build at once, and agents may be running.
func buildCorax() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "corax-lab")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	own := filepath.Join(dir, fmt.Sprintf("corax.%d", os.Getpid()))
	defer func() { _ = os.Remove(own) }()
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", own, "corax/cmd/corax")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	path := filepath.Join(dir, "corax")
	return path, os.Rename(own, path)
}

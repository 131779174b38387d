//go:build linux

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ToolsEnv names the environment variable with the folder of the Kubernetes
// programs. Empty means where integration/k8stools/build.sh has put them; a test
// never builds them, which takes ten minutes.
const ToolsEnv = "CORAX_K8S_BIN"

// Tools returns the folder of the Kubernetes programs. Without them it skips the
// test, or fails it when CI is set; a program fails.
func Tools(t T) string {
	t.Helper()
	dir, err := tools()
	if err == nil {
		return dir
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%v", err)
	}
	t.Skipf("%v", err)
	return ""
}

func tools() (string, error) {
	if dir := os.Getenv(ToolsEnv); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, "kube-apiserver")); err != nil {
			return "", fmt.Errorf("cluster: %s: %w", ToolsEnv, err)
		}
		return dir, nil
	}
	root, err := checkout()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(filepath.Join(root, "integration/k8stools/build.sh"), "-n").Output()
	if err != nil {
		return "", fmt.Errorf("cluster: no Kubernetes programs: run integration/k8stools/build.sh once (about 10 minutes)")
	}
	return strings.TrimSpace(string(out)), nil
}

// checkout returns the folder of the module that the working directory is in.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "integration/k8stools/build.sh")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("cluster: integration/k8stools is not above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// path returns the path of a file of the checkout, given relative to its top.
func path(t T, name string) string {
	t.Helper()
	if filepath.IsAbs(name) {
		return name
	}
	root, err := checkout()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return filepath.Join(root, name)
}

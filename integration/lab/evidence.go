//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ArtifactsEnv names the environment variable with the directory for what
// failed tests leave. Empty means corax-lab-failures in the temporary directory.
const ArtifactsEnv = "CORAX_LAB_ARTIFACTS"

const logTail = 40 // lines of each agent's log in the test log

// saveEvidence writes what helps to understand a failed test, and names the
// place in the test log.
func (l *Lab) saveEvidence(tb testing.TB) {
	root := os.Getenv(ArtifactsEnv)
	if root == "" {
		root = filepath.Join(tempRoot(), "corax-lab-failures")
	}
	dir := filepath.Join(root, strings.Map(fileRune, tb.Name()))
	if err := l.Save(dir); err != nil { // another user's, perhaps
		dir = filepath.Join(fmt.Sprintf("%s-%d", root, os.Getpid()), filepath.Base(dir))
		if err := l.Save(dir); err != nil {
			tb.Log(err)
		}
	}
	tb.Logf("captures, agent logs and host state: %s", dir)
	for _, a := range l.agents {
		b, err := os.ReadFile(a.LogFile())
		if err != nil {
			continue
		}
		tb.Logf("end of the log of the agent on %s:\n%s", a.Host.Name, tail(string(b), logTail))
	}
}

// Save writes captures (pcap), process logs, Gateway files and the state of
// every host to a directory, replacing what it held before.
func (l *Lab) Save(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	var errs []error
	for i, c := range l.captures {
		errs = append(errs, c.WritePCAP(filepath.Join(dir, fmt.Sprintf("%s-%s-%d.pcap", c.Host.Name, c.Link, i))))
	}
	for _, h := range l.Hosts() {
		lines, err := h.Snapshot()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, h.Name+".state"), []byte(strings.Join(lines, "\n")+"\n"), 0o644)
		}
		errs = append(errs, err)
	}
	for _, pattern := range []string{"*/*.log", "*/*.yaml"} {
		paths, _ := filepath.Glob(filepath.Join(l.dir, pattern))
		for _, p := range paths {
			name := filepath.Base(filepath.Dir(p)) + "-" + filepath.Base(p)
			errs = append(errs, copyFile(p, filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

func fileRune(r rune) rune {
	if strings.ContainsRune("/\\ :*?\"<>|", r) {
		return '_'
	}
	return r
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

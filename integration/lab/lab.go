//go:build linux

package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Config configures a Lab. The zero value is usable.
type Config struct {
	// Dir is where state directories, sockets and logs live. Empty means a new
	// temporary directory that Close removes. Keep it short: unix socket paths
	// hold 107 bytes; and outside /run, which hosts do not see.
	Dir string
	// Keep leaves a temporary directory in place on Close.
	Keep bool
	// Log takes what the lab does. Nil means discard.
	Log *slog.Logger
	// WithoutTUN makes a lab on machines without a TUN, too: its agents then have
	// none.
	WithoutTUN bool
}

// Lab is a set of hosts and LANs. Build it from one goroutine; hosts, once
// built, may be used from several.
type Lab struct {
	dir    string
	remove bool
	log    *slog.Logger
	tb     testing.TB // nil outside tests
	ports  atomic.Int32
	plugs  map[plugKey]string // the port in wires of each link to a LAN
	shaped map[plugKey]*userLink

	mu       sync.Mutex
	err      error
	hosts    []*Host
	wires    *space // holds the bridge of every LAN
	lans     int
	captures []*Capture
	agents   []*Agent
	closed   bool
}

// New makes an empty lab. The caller closes it.
func New(cfg Config) (*Lab, error) {
	if err := spacesUsable(); err != nil {
		return nil, err
	}
	if err := HasTUN(); err != nil && !cfg.WithoutTUN {
		return nil, err
	}
	l := &Lab{dir: cfg.Dir, log: cfg.Log, plugs: make(map[plugKey]string), shaped: make(map[plugKey]*userLink)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.dir == "" {
		dir, err := os.MkdirTemp(tempRoot(), "corax-lab-")
		if err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		l.dir, l.remove = dir, !cfg.Keep
	}
	if strings.HasPrefix(l.dir, "/run/") {
		return nil, fmt.Errorf("lab: directory %s: hosts have a /run of their own", l.dir)
	}
	return l, nil
}

// tempRoot is os.TempDir, unless that is below /run.
func tempRoot() string {
	if d := os.TempDir(); !strings.HasPrefix(d, "/run/") {
		return d
	}
	return "/var/tmp"
}

// ForTest makes a lab that ends with the test: a failure to build it is fatal,
// a machine that allows no lab skips the test (fails it when CI is set), and a
// failed test leaves captures, agent logs and host state in a directory that
// the test log names.
func ForTest(tb testing.TB) *Lab {
	tb.Helper()
	l, err := New(Config{})
	if err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	l.tb = tb
	tb.Cleanup(func() {
		if tb.Failed() {
			l.saveEvidence(tb)
		}
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	})
	return l
}

// Err returns the first failure to build the lab, nil when there was none.
func (l *Lab) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Dir returns the directory of the lab: <dir>/<host>/ has that host's files.
func (l *Lab) Dir() string { return l.dir }

// Hosts returns every host in the order of creation.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Host(nil), l.hosts...)
}

// Close stops every process, ends every host and removes the temporary
// directory. It may be called more than once.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	hosts, captures, wires := l.hosts, l.captures, l.wires
	l.mu.Unlock()

	for _, h := range hosts {
		h.killAll()
	}
	for _, c := range captures {
		c.Close()
	}
	for _, h := range hosts {
		h.close()
	}
	if wires != nil {
		wires.close()
	}
	if l.remove {
		if err := os.RemoveAll(l.dir); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

// failed records the first failure; in a test it is fatal. It reports whether
// there is one, so that builders can stop.
func (l *Lab) failed(err error) bool {
	if err == nil {
		return l.Err() != nil
	}
	err = fmt.Errorf("lab: %w", err)
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	if l.tb != nil {
		l.tb.Helper()
		l.tb.Fatal(err)
	}
	return true
}

// hostDir makes the directory of a host.
func (l *Lab) hostDir(name string) (string, error) {
	if name == "" || name != filepath.Base(name) {
		return "", errors.New("a host needs a name without a slash")
	}
	dir := filepath.Join(l.dir, name)
	return dir, os.MkdirAll(dir, 0o755)
}

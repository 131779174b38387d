package udpbatch

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace of the test's own. Its functions run on one
// thread that lives in it; the namespace goes when the thread and the sockets
// opened in it have gone.
type namespace struct {
	t    testing.TB
	fd   int
	work chan func()
}

// newNamespace makes one, or skips the test where that is not allowed.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	n := &namespace{t: t, work: make(chan func())}
	ready := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends a thread that is still locked when
		// its goroutine returns, and so nobody else gets this namespace.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		ready <- err
		if err != nil {
			return
		}
		for f := range n.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		unable(t, "no network namespace", err)
	}
	t.Cleanup(func() {
		close(n.work)
		_ = unix.Close(n.fd)
	})
	return n
}

// do runs f in the namespace and fails the test when f does.
func (n *namespace) do(what string, f func() error) {
	n.t.Helper()
	done := make(chan error, 1)
	n.work <- func() { done <- f() }
	if err := <-done; err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			unable(n.t, what, err)
		}
		n.t.Fatalf("%s: %v", what, err)
	}
}

// unable skips the test, unless in CI, where everything is expected to be there.
func unable(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

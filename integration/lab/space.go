//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

var (
	errSpaceClosed = errors.New("the host is closed")
	errNotReturned = errors.New("the function did not return") // runtime.Goexit, as by t.FailNow
)

// space is an OS thread in namespaces of its own, which executes functions one
// after another. Nothing but this thread, descriptors and child processes holds
// the namespaces, so they go with the process.
type space struct {
	calls chan func()
	quit  chan struct{}
	done  chan struct{}

	mu    sync.RWMutex
	netns *os.File // nil when closed
}

// newSpace starts the thread. dir is an existing directory for the files that
// are mounted into the new namespace.
func newSpace(dir string) (*space, error) { return newSpaceAt(dir, "") }

// newSpaceAt is newSpace with a network namespace that a file stands for; empty means
// a new one.
func newSpaceAt(dir, netns string) (*space, error) {
	s := &space{
		calls: make(chan func()),
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	ready := make(chan error, 1)
	onOwnThread(func() { s.serve(dir, netns, ready) })
	if err := <-ready; err != nil {
		return nil, err
	}
	return s, nil
}

func (s *space) serve(dir, netns string, ready chan<- error) {
	defer close(s.done)
	if err := s.enter(dir, netns); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for {
		select {
		case f := <-s.calls:
			f()
		case <-s.quit:
			return
		}
	}
}

func (s *space) enter(dir, netns string) error {
	fresh := unix.CLONE_NEWNET | unix.CLONE_NEWNS
	if netns != "" {
		fresh = unix.CLONE_NEWNS
	}
	if err := unix.Unshare(fresh); err != nil {
		return fmt.Errorf("unshare network and mount namespace: %w", err)
	}
	if netns != "" {
		if err := joinNetns(netns); err != nil {
			return err
		}
	}
	if err := privateMounts(dir); err != nil {
		return err
	}
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	s.netns = f
	return nil
}

// joinNetns moves the calling thread into the network namespace that a file stands for.
func joinNetns(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// do runs f on the thread and waits for it. f must not call do of the same
// space again.
func (s *space) do(f func() error) error {
	err := errNotReturned
	finished := make(chan struct{})
	call := func() {
		defer close(finished)
		err = f()
	}
	select {
	case s.calls <- call:
	case <-s.done:
		return errSpaceClosed
	}
	<-finished
	return err
}

// visit runs f on a thread of its own in the network namespace (not the mount
// namespace), so that a slow f holds up nobody. Sockets made by f stay in the
// namespace and can be used from any thread.
func (s *space) visit(f func() error) error {
	result := make(chan error, 1)
	onOwnThread(func() {
		err := s.join()
		returned := false
		defer func() {
			if !returned {
				err = errNotReturned
			}
			result <- err
		}()
		if err == nil {
			err = f()
		}
		returned = true
	})
	return <-result
}

// join moves the calling thread into the network namespace.
func (s *space) join() error {
	return s.withNetns(func(fd int) error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return nil
	})
}

// withNetns calls f with the descriptor of the network namespace, which stays
// open meanwhile.
func (s *space) withNetns(f func(fd int) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.netns == nil {
		return errSpaceClosed
	}
	return f(int(s.netns.Fd()))
}

// close ends the thread, and with it every child process started on it.
func (s *space) close() {
	close(s.quit)
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.netns.Close()
	s.netns = nil
}

// onOwnThread runs f in a goroutine whose OS thread ends with it. It is never
// the first thread of the process: /proc/self shows that one's namespaces, and
// it cannot end.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return // locked, so the runtime ends the thread
		}
		defer runtime.UnlockOSThread()
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(locked)
			f()
		}()
		<-locked
	}()
}

// privateMounts gives the calling thread a /run and a resolv.conf of its own.
func privateMounts(dir string) error {
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, nil, 0o644); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	target, err := filepath.EvalSymlinks("/etc/resolv.conf") // before /run hides it
	if err != nil {
		target = ""
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=64m"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	switch {
	case target == "": // no resolv.conf to hide
		return nil
	case strings.HasPrefix(target, "/run/"):
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, nil, 0o644); err != nil {
			return err
		}
	}
	if err := unix.Mount(resolv, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount a private resolv.conf: %w", err)
	}
	return nil
}

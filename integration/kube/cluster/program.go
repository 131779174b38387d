package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
)

// T is what a control plane, and what runs on it, needs of the test that started
// it. A testing.TB is one; Run gives one to a program that is no test.
type T interface {
	// Context ends before what Cleanup was given is called.
	Context() context.Context
	// Cleanup has f called at the end, the last one first.
	Cleanup(f func())
	// TempDir makes a folder.
	TempDir() string
	Helper()
	// Errorf reports a failure. Fatalf and Skipf end the goroutine too: they are
	// for the one that the test, or Run's function, has.
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Run calls f with a T of its own and returns when all is cleaned up: nil, or all
// that failed. What f misses, so that a test would be skipped, is a failure here.
// Folders are made in dir, which the caller removes.
func Run(ctx context.Context, dir string, f func(T)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &program{ctx: ctx, dir: dir}
	p.call(func() { f(p) })
	cancel()
	for _, f := range slices.Backward(p.cleanups) {
		p.call(f)
	}
	return errors.Join(p.errs...)
}

// program is the T of Run. One goroutine at a time uses it.
type program struct {
	ctx      context.Context // of one Run, as that of a testing.T
	dir      string
	cleanups []func()
	errs     []error
}

// call waits until f has returned or has ended its goroutine.
func (p *program) call(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func (p *program) Context() context.Context { return p.ctx }

func (p *program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

func (p *program) Helper() {}

func (p *program) TempDir() string {
	dir, err := os.MkdirTemp(p.dir, "cluster-")
	if err != nil {
		p.Fatalf("cluster: %v", err)
	}
	return dir
}

func (p *program) Errorf(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (p *program) Fatalf(format string, args ...any) {
	p.Errorf(format, args...)
	runtime.Goexit()
}

func (p *program) Skipf(format string, args ...any) { p.Fatalf(format, args...) }

package main

import "context"

// A running part has a Run that is on in a goroutine of its own. The nil
// running is a part that is off.
type running[T any] struct {
	part   T
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid once done is closed
}

// start runs a part until ctx ends or it is stopped.
func start[T any](ctx context.Context, part T, run func(context.Context) error) *running[T] {
	ctx, cancel := context.WithCancel(ctx)
	r := &running[T]{part: part, cancel: cancel, done: make(chan struct{})}
	go r.run(ctx, run)
	return r
}

func (r *running[T]) run(ctx context.Context, run func(context.Context) error) {
	defer close(r.done)
	r.err = run(ctx)
}

// value returns the part, or the zero value when it is off.
func (r *running[T]) value() (part T) {
	if r == nil {
		return part
	}
	return r.part
}

// dead reports whether the part was started and has ended by itself.
func (r *running[T]) dead() bool {
	if r == nil {
		return false
	}
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// stop ends the part, joins it, and returns what its Run returned.
func (r *running[T]) stop() error {
	if r == nil {
		return nil
	}
	r.cancel()
	<-r.done
	return r.err
}

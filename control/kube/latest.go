package kube

import "sync"

// latest is a value that many set and one goroutine waits for: only the newest
// counts. wake is shared by all values that the goroutine waits for.
type latest[T any] struct {
	wake chan struct{}

	mu    sync.Mutex
	value T
	set   bool
}

func (l *latest[T]) put(v T) {
	l.mu.Lock()
	l.value, l.set = v, true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// get returns the newest value; false when there was none yet.
func (l *latest[T]) get() (T, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.set
}

package main

import "sync"

// errChange tells changes of an error apart from its repetition. The zero value has
// seen none; its method may be called from several goroutines at once.
type errChange struct {
	mu   sync.Mutex
	last string
}

// is reports whether err says something else than the one before; nil says nothing.
func (c *errChange) is(err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := text != c.last
	c.last = text
	return changed
}

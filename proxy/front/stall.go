package front

import (
	"sync"
	"sync/atomic"
	"time"
)

// stallAfter is how long an end takes nothing until that counts, as in a splice.
const stallAfter = 10 * time.Second

// stallWatch counts an end that takes nothing, once.
type stallWatch struct {
	count *atomic.Uint64
	once  sync.Once
}

// watch looks at a write, until what it returns is called.
func (w *stallWatch) watch() (done func()) {
	t := time.AfterFunc(stallAfter, func() { w.once.Do(func() { w.count.Add(1) }) })
	return func() { t.Stop() }
}

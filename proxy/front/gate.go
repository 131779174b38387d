package front

import (
	"cmp"
	"net/netip"
	"sync"

	"corax/proxy"
)

// gate bounds the connections that have not said yet what they want, in all and by
// the source they come from. What is known to be a stream is bounded by the
// registry of streams instead.
type gate struct {
	max int

	mu    sync.Mutex
	total int
	by    map[netip.Addr]int
}

func newGate(maximum int) *gate {
	return &gate{max: cmp.Or(maximum, 1024), by: map[netip.Addr]int{}}
}

// enter lets a connection in, unless there are too many. It is let out by calling
// leave, as often as one likes.
func (g *gate) enter(from netip.Addr) (leave func(), ok bool) {
	from = proxy.Source(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.max || g.by[from] >= (g.max+1)/2 {
		return nil, false
	}
	g.total++
	g.by[from]++
	return sync.OnceFunc(func() { g.leave(from) }), true
}

func (g *gate) leave(from netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.by[from]--; g.by[from] == 0 {
		delete(g.by, from)
	}
}

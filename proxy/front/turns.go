package front

import (
	"context"
	"net/netip"
	"sync"

	"corax/proxy"
)

// maxTurns is how much of what is asked at once one source may have: who asks about
// tokens without end takes no more than that from others.
const maxTurns = maxReviews / 4

// turns bound what is asked at once, in all and by source. Make it with newTurns.
type turns struct {
	all chan struct{}

	mu sync.Mutex
	by map[netip.Addr]*sourceTurns
}

// sourceTurns are those of one source, kept while somebody has or wants one.
type sourceTurns struct {
	turns chan struct{}
	users int
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, maxReviews), by: map[netip.Addr]*sourceTurns{}}
}

// wait waits for a turn until ctx ends. It is to be given back.
func (t *turns) wait(ctx context.Context, from netip.Addr) (back func(), ok bool) {
	from = proxy.Source(from)
	t.mu.Lock()
	s := t.by[from]
	if s == nil {
		s = &sourceTurns{turns: make(chan struct{}, maxTurns)}
		t.by[from] = s
	}
	s.users++
	t.mu.Unlock()
	// The own turn first: who waits for that takes nothing from others.
	for i, c := range []chan struct{}{s.turns, t.all} {
		select {
		case c <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-s.turns
			}
			t.leave(from, s)
			return nil, false
		}
	}
	return func() {
		<-t.all
		<-s.turns
		t.leave(from, s)
	}, true
}

func (t *turns) leave(from netip.Addr, s *sourceTurns) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(t.by, from)
	}
}

package nat

import (
	"context"
	"time"
)

// drainFor is how long a relay that stops goes on: who uses it needs a moment to
// hear of it and to send another way.
const drainFor = time.Second

// Drain tells everybody that this node is about to stop. It returns when those
// who are relayed had time to go another way, which is at once when nobody is, or
// when ctx ends. Relaying goes on meanwhile, and until Run returns.
func (a *Agent) Drain(ctx context.Context) {
	var relaying bool
	err := a.await(ctx, func() {
		a.draining = true
		a.sayWho()
		for _, f := range a.book.Forwards() {
			relaying = relaying || f.Out != 0 // those with zero end here
		}
	})
	if err != nil || !relaying {
		return
	}
	t := time.NewTimer(drainFor)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

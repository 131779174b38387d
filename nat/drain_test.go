package nat

import (
	"context"
	"testing"
	"time"
)

// TestDrain has the hub in use say that it is about to stop: both ends are on
// the other one before it does, and stay there.
func TestDrain(t *testing.T) {
	lab(t, func(w *internet) {
		w.hub("hub")
		w.hub("hub2")
		w.node("hub2").cost = 100 * time.Millisecond
		w.symmetric("a")
		w.symmetric("b")
	}, func(t *testing.T, w *internet) {
		a, b := w.node("a"), w.node("b")
		w.run(5 * time.Second)
		defer a.talk(b)()
		w.within(30*time.Second, "the cheaper relay", func() bool { return a.via(b) == "relay hub" && b.via(a) == "relay hub" })
		w.run(5 * time.Second)

		begin := time.Now()
		a.agent.Drain(context.Background())
		if took := time.Since(begin); took != 0 {
			t.Errorf("an edge drained for %v", took)
		}

		begin = time.Now()
		done := make(chan struct{})
		go func() { w.node("hub").agent.Drain(context.Background()); close(done) }()
		w.within(500*time.Millisecond, "the other relay", func() bool {
			return a.via(b) == "relay hub2" && b.via(a) == "relay hub2"
		})
		<-done
		if took := time.Since(begin); took != drainFor {
			t.Errorf("drained for %v", took)
		}
		if s := a.status(b).Path.Transitions; s[len(s)-1].Cause.Code() != "relay-leaving" {
			t.Errorf("transitions %+v", s)
		}
		w.run(10 * time.Second)
		if a.via(b) != "relay hub2" {
			t.Errorf("back on %s", a.via(b))
		}
	})
}

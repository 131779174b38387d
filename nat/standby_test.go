package nat

import (
	"testing"
	"time"

	"corax/control/hello"
)

// claims is what n was told that x says.
func (n *node) heardClaims(x *node) *hello.Claims {
	v, _ := n.claims.Load(x.key)
	c, _ := v.(*hello.Claims)
	return c
}

// TestStandbyIsCalled: an edge whose path to a gateway node falls silent makes one
// to the standby of that domain, and so hears what it claims. Who talks to others
// does not.
func TestStandbyIsCalled(t *testing.T) {
	lab(t, func(w *internet) {
		w.hub("hub")
		w.edge("a")
		w.edge("b")
		w.edge("c").domain = "b"
		w.edge("d")
	}, func(t *testing.T, w *internet) {
		hub, a, b, c, d := w.node("hub"), w.node("a"), w.node("b"), w.node("c"), w.node("d")
		w.run(5 * time.Second)
		defer a.talk(b)()
		defer d.talk(a)()
		w.within(30*time.Second, "a path", a.reaches(b, "direct"))
		w.run(time.Minute)
		if a.via(c) != "none" {
			t.Fatalf("a path to a standby that nobody needs: %s", a.via(c))
		}
		b.kill()
		w.within(10*time.Second, "a path to the standby", func() bool { return a.via(c) != "none" })
		if d.via(c) != "none" || a.heardClaims(c) != nil {
			t.Errorf("d has the path %s, a heard %+v", d.via(c), a.heardClaims(c))
		}
		p := c.plan()
		p.Claims = &hello.Claims{Gateway: "b", Epoch: 1, Active: []string{"c"}}
		c.setPlan(p)
		heard := func(x *node) func() bool {
			return func() bool { h := x.heardClaims(c); return h != nil && h.Epoch == 1 && h.Gateway == "b" }
		}
		w.within(3*time.Second, "the claim at the edge", heard(a))
		w.within(3*time.Second, "the claim at the hub", heard(hub))
		// It is over when the standby says so, and when it is silent for long.
		p.Claims = &hello.Claims{Gateway: "b"}
		c.setPlan(p)
		w.within(3*time.Second, "the end of the claim", func() bool { return hub.heardClaims(c) != nil && hub.heardClaims(c).Epoch == 0 })
		c.kill()
		w.within(2*time.Minute, "silence", func() bool { return hub.heardClaims(c) == nil })
	})
}

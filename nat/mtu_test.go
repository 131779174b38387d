package nat

import (
	"maps"
	"testing"
	"time"

	"corax/dataplane/key"
)

// TestMTU measures paths of several sizes.
func TestMTU(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload int // UDP payload that fits the path
		link    int // and our own link, which says so
		want    int
	}{
		{"Ethernet", 1472, 0, 1408},
		{"jumbo frames that the plan does not use", 9000, 0, 1408},
		{"PPPoE over an IPv6 tunnel", 1372, 0, 1328},
		{"our own link is small", 1472, 1372, 1328},
		{"the smallest", 1240, 0, 1200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, func(w *internet) {
				oneHub(w)
				w.mtu = tt.payload
				w.node("a").linkMTU = tt.link
			}, func(t *testing.T, w *internet) {
				hub, a := w.node("hub"), w.node("a")
				if tt.link != 0 {
					w.run(3500 * time.Millisecond) // no probe is to be waited for
				} else {
					w.run(20 * time.Second)
				}
				s := a.status(hub)
				want := map[key.Public]int{hub.key: tt.want}
				if got := a.agent.MTUs(); !maps.Equal(got, want) || s.Path.MTU != tt.want {
					t.Errorf("shown %v, measured %d; want %v", got, s.Path.MTU, want)
				}
				if n := a.changed.Load(); n < 1 || n > 6 {
					t.Errorf("told %d times of changes", n)
				}
				told := a.changed.Load()
				w.run(time.Minute)
				if n := a.changed.Load(); n != told {
					t.Errorf("told %d times of no change", n-told)
				}
			})
		})
	}
}

// TestNarrowed has a path become too small for what it carried.
func TestNarrowed(t *testing.T) {
	lab(t, oneHub, func(t *testing.T, w *internet) {
		a, b := w.node("a"), w.node("b")
		w.run(5 * time.Second)
		defer a.talk(b)()
		w.run(20 * time.Second)
		if m := a.agent.MTUs()[b.key]; m != 1408 {
			t.Fatalf("MTU %d at first", m)
		}
		w.mu.Lock()
		w.mtu = 1300
		w.mu.Unlock()
		w.within(time.Minute, "a smaller MTU", func() bool { m := a.agent.MTUs()[b.key]; return m < 1280 && m >= 1184 })
		if a.via(b) != "direct" {
			t.Errorf("path is %s", a.via(b))
		}
	})
}

// TestWhoHearsOfMTUs: an MTU is told when it has stayed for a second.
func TestWhoHearsOfMTUs(t *testing.T) {
	n := newInternet(t).add(&node{name: "a"})
	a := newAgent(t, n)
	told := 0
	a.cfg.Changed = func() { told++ }
	k := key.Public{1}
	p := &peer{Peer: Peer{Key: k}}
	a.peers[k] = p
	for i, step := range []struct {
		mtu   int // zero: as it is; negative: its machine is gone
		later bool
		told  int
		shown int
	}{
		{1184, false, 0, 0}, // a search goes through some
		{1408, false, 0, 0},
		{0, true, 1, 1408},
		{1408, true, 1, 1408}, // no news
		{1328, false, 1, 1408},
		{0, true, 2, 1328},
		{1408, false, 2, 1328},
		{1328, true, 2, 1328}, // back before anybody heard
		{-1, false, 3, 0},
	} {
		if step.mtu > 0 {
			a.setMTU(p, step.mtu)
		} else if step.mtu < 0 {
			a.setMTU(p, 0)
		}
		if step.later {
			p.mtuAt = p.mtuAt.Add(-2 * mtuSettles)
		}
		a.tellMTUs()
		shown, ok := a.MTUs()[k]
		if told != step.told || shown != step.shown || ok != (shown != 0) {
			t.Errorf("step %d: told %d times, shown %d", i, told, shown)
		}
	}
}

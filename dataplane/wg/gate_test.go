package wg

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"corax/dataplane/key"
)

func TestGateWithoutSession(t *testing.T) {
	g := newGate(Bounds{}.whole())
	p := &peer{}
	admitted := func(now time.Duration, n int) (ok int) {
		for range n {
			if g.admit(p, now) {
				ok++
			}
		}
		return ok
	}
	for _, step := range []struct {
		name string
		now  time.Duration
		try  int
		sent int // packets that come out before
		want int
	}{
		{"first packets wait for the session", 0, 1000, 0, maxStaged},
		{"no more soon after", time.Second, 1000, 0, 0},
		{"one makes wireguard-go try again", probeEvery, 1000, 0, 1},
		{"and no second", probeEvery + time.Second, 1000, 0, 0},
		{"one more later", 2 * probeEvery, 1000, 0, 1},
		{"the session comes", 2*probeEvery + time.Second, 100, 1, 100},
		{"they come out late", 2*probeEvery + time.Second, 100, maxStaged + 1, 100},
		{"progress", 2*probeEvery + time.Second + stallAfter/2, 10, 200, 10},
		{"the session ends", 3 * probeEvery, 1000, 0, maxStaged},
	} {
		if step.want == maxStaged { // wireguard-go notices that there is no session
			p.initiated.Store(true)
		}
		if step.sent > 0 {
			p.initiated.Store(false)
		}
		g.passed(p, step.sent)
		if got := admitted(step.now, step.try); got != step.want {
			t.Errorf("%s: %d admitted, want %d", step.name, got, step.want)
		}
	}
	if g.full() || g.handed != g.passes.Load() {
		t.Errorf("%d packets count as in flight, and all have come out or wait", g.handed-g.passes.Load())
	}
}

// TestGateDeadPeer checks that the packets of a peer that died do not hold up
// the others for longer than it takes to notice.
func TestGateDeadPeer(t *testing.T) {
	g := newGate(Bounds{}.whole())
	dead, live := &peer{}, &peer{}
	for _, p := range []*peer{dead, live} {
		g.admit(p, 0)
		g.passed(p, 1)
		g.admit(p, 0)
	}
	g.passed(live, 1)
	for !g.full() {
		g.admit(dead, time.Millisecond)
	}
	later := time.Millisecond + stallAfter + 1
	g.sweep([]*peer{dead, live}, later)
	if !g.full() || !dead.flow.flowing {
		t.Fatal("a slow machine is taken for a dead peer")
	}
	dead.initiated.Store(true)
	g.sweep([]*peer{dead, live}, later)
	if g.full() {
		t.Fatal("the gate stays full of a dead peer's packets")
	}
	if dead.flow.flowing || !live.flow.flowing {
		t.Error("the wrong peer counts as dead")
	}
}

// TestGateLost checks that packets which wireguard-go lost do not count for
// ever, and are no reason to refuse others.
func TestGateLost(t *testing.T) {
	g := newGate(Bounds{}.whole())
	p := &peer{}
	g.admit(p, 0)
	g.passed(p, 1)
	for !g.full() {
		g.admit(p, 0)
	}
	g.sweep([]*peer{p}, giveUpAfter)
	if !g.full() {
		t.Fatal("given up too early")
	}
	g.sweep([]*peer{p}, giveUpAfter+1)
	if g.full() || !p.flow.flowing {
		t.Error("lost packets still count, or the peer is refused")
	}
}

// TestGateRandom runs random traffic: the bound holds, and when everything has
// come out nothing counts as in flight, whatever was given up before.
func TestGateRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	g := newGate(Bounds{}.whole())
	peers := []*peer{{}, {}, {}}
	inside := make([]int, len(peers)) // packets really inside
	now := time.Duration(0)
	for range 100_000 {
		i := rng.IntN(len(peers))
		switch rng.IntN(8) {
		case 0:
			now += time.Duration(rng.IntN(int(stallAfter)))
		case 1:
			g.sweep(peers, now)
		case 2: // wireguard-go drops
			inside[i] -= rng.IntN(inside[i] + 1)
		case 3, 4:
			n := rng.IntN(inside[i] + 1)
			inside[i] -= n
			g.passed(peers[i], n)
			peers[i].initiated.Store(false)
		case 5:
			peers[i].initiated.Store(true)
		default:
			if !g.full() && g.admit(peers[i], now) {
				inside[i]++
			}
			if n := int64(g.handed - g.passes.Load()); n > g.bound {
				t.Fatalf("%d in flight", n)
			}
		}
	}
	for i, p := range peers {
		g.passed(p, inside[i])
	}
	g.sweep(peers, now)
	g.sweep(peers, now+2*giveUpAfter)
	if n := int64(g.handed - g.passes.Load()); n != 0 {
		t.Errorf("%d in flight at the end", n)
	}
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(Bounds{}.whole())
		closed := make(chan struct{})
		wait := func() <-chan bool {
			out := make(chan bool, 1)
			go func() {
				timer := time.NewTimer(time.Hour)
				defer timer.Stop()
				out <- w.wait(timer, closed)
			}()
			return out
		}
		waits := func(c <-chan bool) bool {
			synctest.Wait()
			select {
			case <-c:
				return false
			default:
				return true
			}
		}

		w.add(int(w.bound) - 1)
		if c := wait(); waits(c) {
			t.Fatal("waits below the bound")
		}
		w.add(1)
		c := wait()
		if !waits(c) {
			t.Fatal("does not wait at the bound")
		}
		w.take(1)
		if waits(c) {
			t.Fatal("does not wake up")
		}

		// A Write that takes long is no reason to give anything up.
		w.add(1)
		w.busy.Add(1)
		c = wait()
		time.Sleep(time.Minute)
		if !waits(c) {
			t.Fatal("gave up packets while a Write is at work")
		}
		w.busy.Add(-1)
		time.Sleep(2 * inboundStall)
		if waits(c) {
			t.Fatal("waits for packets that were dropped")
		}
		if w.resets.Load() != 1 || w.n.Load() != 0 {
			t.Errorf("resets %d, in flight %d", w.resets.Load(), w.n.Load())
		}
		w.take(5) // they come after all
		if w.n.Load() != 0 {
			t.Errorf("in flight %d", w.n.Load())
		}

		w.add(int(w.bound))
		c = wait()
		close(closed)
		synctest.Wait()
		if ok := <-c; ok {
			t.Error("wait says true although closed")
		}
	})
}

// TestKept checks how long an initiation waits for a path, and that the newest
// one counts.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBind()
		p := b.table.add(key.Public{1})
		b.keep(p, message(sizeInitiation, 1))
		newest := message(sizeInitiation, 1)
		newest[20] = 9
		b.keep(p, newest)
		if got := b.drops.n[dropHandshakeExpired].Load(); got != 1 {
			t.Errorf("%d dropped, want the older one", got)
		}
		if p.kept.n != sizeInitiation || p.kept.msg[20] != 9 {
			t.Error("the newest is not kept")
		}
		time.Sleep(keepHandshake + time.Nanosecond)
		b.table.setPath(p, directPath(addr("192.0.2.1:1"), p.SrcIP(), 0), nil)
		b.release(p)
		if got := b.drops.n[dropHandshakeExpired].Load(); got != 2 {
			t.Error("an old initiation was sent")
		}
		b.release(p)
		if got := b.drops.n[dropHandshakeExpired].Load(); got != 2 || p.kept.n != 0 {
			t.Error("released twice")
		}
	})
}

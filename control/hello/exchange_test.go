package hello

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane/key"
)

func someCandidates(port uint16) Candidates {
	return Candidates{
		ProbeID: [8]byte{1, 2}, ProbeKey: [32]byte{3},
		Addrs: []Candidate{
			{1, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), port)},
			{2, netip.AddrPortFrom(netip.MustParseAddr("2001:db8::7"), port)},
		},
		Mapping: 2, Filtering: 3, PortStep: -4, Calls: 3, MTU: 1392,
		Test: Test{Tx: [12]byte{9}, Addr: netip.MustParseAddrPort("192.0.2.9:4711")},
	}
}

func compareAddr() cmp.Option {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
}

func want(t *testing.T, wanted, got any) {
	t.Helper()
	if reflect.DeepEqual(wanted, got) { // quick for the big ones
		return
	}
	if d := cmp.Diff(wanted, got, compareAddr()); d != "" {
		t.Error(d)
	}
}

func TestTwoPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		defer b.stop()
		self := Self{Version: "v1", Gateway: "gw-a", Node: "n1", Hub: true}
		relay := Relay{
			Wanted: []Want{{Peer: b.key, Next: peerKey(3), Origin: peerKey(4)}},
			Labels: []Label{{Peer: peerKey(5), Label: 1<<56 - 1, CostMicros: 9, Via: []key.Public{peerKey(3)}}},
		}
		costs := Costs{Links: []Link{{peerKey(3), 20_000, true}, {peerKey(4), 0, false}}}
		claims := Claims{Gateway: "gw-a", Epoch: 7, Active: []string{"n1"}}
		a.must(a.SetSelf(self))
		a.must(a.SetCandidates(b.key, someCandidates(4500)))
		a.must(a.SetRelay(b.key, relay))
		a.must(a.SetCosts(b.key, costs))
		a.must(a.SetClaims(claims))
		time.Sleep(time.Second)
		if n.count(a) != 0 {
			t.Error("something was sent to a peer that is not active")
		}
		a.SetActive(b.key, true)
		time.Sleep(12 * time.Millisecond)
		c := someCandidates(4500)
		h := b.Of(a.key)
		if h.At.IsZero() {
			t.Fatal("nothing was heard")
		}
		h.At = time.Time{}
		want(t, Heard{Self: &self, Candidates: &c, Relay: &relay, Costs: &costs, Claims: &claims}, h)

		// It lives as long as it is said, with the same pointers.
		time.Sleep(10 * time.Minute)
		if got := b.Of(a.key); got.Relay != h.Relay || got.Candidates != h.Candidates {
			t.Error("an equal value is another one")
		}
		if u := b.updated(TopicRelay); u < 24 || u > 30 {
			t.Errorf("%d updates in ten minutes", u)
		}
		// And is gone 75 s after that.
		a.stop()
		time.Sleep(Lifetime)
		if got := b.Of(a.key); got.Self != nil || got.Relay != nil {
			t.Errorf("state of a dead peer: %+v", got)
		}
		synctest.Wait()
		if e := b.count("hello_expired_total", ""); e != 5 {
			t.Errorf("%d topics expired, want 5", e)
		}
	})
}

// Sleeping inside a bubble only moves the virtual clock.

func TestCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		defer a.stop()
		defer b.stop()
		a.SetActive(b.key, true)
		time.Sleep(time.Second)
		before := n.count(a)
		for port := range uint16(8) {
			a.must(a.SetCandidates(b.key, someCandidates(port+1)))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(5 * time.Millisecond)
		if got := n.count(a) - before; got != 1 {
			t.Errorf("%d messages for changes within 10 ms", got)
		}
		if c := b.Of(a.key).Candidates; c == nil || c.Addrs[0].Addr.Port() != 8 {
			t.Errorf("heard %v", c)
		}
		a.must(a.SetCandidates(b.key, someCandidates(8)))
		time.Sleep(5 * time.Second)
		if got := n.count(a) - before; got != 3 {
			t.Errorf("%d messages, want the change and two repetitions", got)
		}
	})
}

// A flapping input is held back by the sender, and still ends right.
func TestFlappingInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		defer a.stop()
		defer b.stop()
		a.SetActive(b.key, true)
		const seconds = 20
		for i := range seconds * 1000 / 5 {
			a.must(a.SetCandidates(b.key, someCandidates(uint16(i+1))))
			time.Sleep(5 * time.Millisecond)
		}
		if got := n.count(a); got > outBurst+(seconds+1)*outRate {
			t.Errorf("%d messages in %d s", got, seconds)
		}
		time.Sleep(5 * time.Second)
		if c := b.Of(a.key).Candidates; c == nil || c.Addrs[0].Addr.Port() != seconds*200 {
			t.Errorf("heard %v", c)
		}
		if a.count("hello_held_back_total", "") == 0 {
			t.Error("nothing was held back")
		}
	})
}

func bigRelay(seed uint64, n int) Relay {
	rng := rand.New(rand.NewPCG(seed, 2))
	var r Relay
	for range n {
		r.Labels = append(r.Labels, Label{
			Peer: peerKey(byte(1 + rng.IntN(9))), Label: 1 + rng.Uint64N(1<<56-1),
			CostMicros: rng.Uint32(), Via: []key.Public{peerKey(3), peerKey(4)}, Origin: peerKey(5),
		})
		r.Wanted = append(r.Wanted, Want{peerKey(6), peerKey(7), peerKey(8)})
	}
	return r
}

// The biggest value that is allowed gets through, in parts, in any order.
func TestBigValue(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			rng := rand.New(rand.NewPCG(seed, 3))
			n.fate = func(_, _ netip.Addr, b []byte) []time.Duration {
				if len(b) > MaxMessage {
					t.Errorf("a message of %d bytes", len(b))
				}
				return []time.Duration{time.Duration(rng.IntN(50)) * time.Millisecond, time.Duration(rng.IntN(50)) * time.Millisecond}
			}
			a, b := n.start(t, 1, nil), n.start(t, 2, nil)
			defer a.stop()
			defer b.stop()
			r := bigRelay(seed, MaxLabels)
			a.SetActive(b.key, true)
			a.must(a.SetRelay(b.key, r))
			time.Sleep(100 * time.Millisecond)
			got := b.Of(a.key).Relay
			if got == nil {
				t.Fatal("it did not arrive")
			}
			want(t, r, *got)
			if n.count(a) < 50 {
				t.Error("that was not big")
			}
			r.Labels = append(r.Labels, r.Labels[0])
			if err := a.SetRelay(b.key, r); err == nil {
				t.Error("one more is accepted")
			}
			b.Exchange.mu.Lock()
			defer b.Exchange.mu.Unlock()
			if b.assembled != 0 {
				t.Errorf("%d bytes wait for parts of whole values", b.assembled)
			}
		})
	}
}

// With loss, reordering and duplicates everybody ends with the last values.
func TestWildNetwork(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				n.fate = wild(rand.New(rand.NewPCG(seed, 4)))
				rng := rand.New(rand.NewPCG(seed, 5))
				nodes := []*node{n.start(t, 1, nil), n.start(t, 2, nil), n.start(t, 3, nil)}
				last := make(map[[2]int]uint16)
				for i, x := range nodes {
					defer x.stop()
					for j, y := range nodes {
						if i != j {
							x.SetActive(y.key, true)
						}
					}
				}
				for step := range 100 {
					i, j := rng.IntN(3), rng.IntN(3)
					if i == j {
						continue
					}
					last[[2]int{i, j}] = uint16(step + 1)
					nodes[i].must(nodes[i].SetCandidates(nodes[j].key, someCandidates(uint16(step+1))))
					nodes[i].must(nodes[i].SetRelay(nodes[j].key, bigRelay(uint64(step), 30)))
					time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
				}
				time.Sleep(8 * Heartbeat)
				n.mu.Lock()
				n.fate = func(_, _ netip.Addr, _ []byte) []time.Duration { return []time.Duration{0} }
				n.mu.Unlock()
				time.Sleep(2 * Heartbeat)
				for ends, port := range last {
					h := nodes[ends[1]].Of(nodes[ends[0]].key)
					if h.Candidates == nil || h.Relay == nil {
						t.Fatalf("%v: %+v", ends, h)
					}
					if got := h.Candidates.Addrs[0].Addr.Port(); got != port {
						t.Errorf("%v: port %d, want %d", ends, got, port)
					}
					want(t, bigRelay(uint64(port-1), 30), *h.Relay)
				}
			})
		})
	}
}

// A lost change is said again soon, not with the next heartbeat.
func TestLostChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		defer a.stop()
		defer b.stop()
		a.SetActive(b.key, true)
		time.Sleep(2 * time.Second)
		lose := 2
		n.mu.Lock()
		n.fate = func(_, _ netip.Addr, _ []byte) []time.Duration {
			if lose--; lose >= 0 {
				return nil
			}
			return []time.Duration{time.Millisecond}
		}
		n.mu.Unlock()
		a.must(a.SetCandidates(b.key, someCandidates(1)))
		time.Sleep(1300 * time.Millisecond)
		if b.Of(a.key).Candidates == nil {
			t.Error("not heard after 1.3 s")
		}
	})
}

// A restarted peer replaces what it said before at once, and late messages of
// the dead one change nothing.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		b := n.start(t, 2, nil)
		defer b.stop()
		var late [][]byte
		n.fate = func(_, _ netip.Addr, m []byte) []time.Duration {
			late = append(late, m)
			return []time.Duration{time.Millisecond}
		}
		a := n.start(t, 1, nil)
		a.SetActive(b.key, true)
		for i := range uint16(20) { // its sequence goes up
			a.must(a.SetCandidates(b.key, someCandidates(i+1)))
			time.Sleep(20 * time.Millisecond)
		}
		a.must(a.SetClaims(Claims{Epoch: 1}))
		time.Sleep(50 * time.Millisecond)
		a.stop()

		old := late
		a = n.start(t, 1, nil)
		defer a.stop()
		a.SetActive(b.key, true)
		a.must(a.SetCandidates(b.key, someCandidates(999)))
		time.Sleep(12 * time.Millisecond)
		check := func(when string) {
			t.Helper()
			h := b.Of(a.key)
			if h.Candidates == nil || h.Candidates.Addrs[0].Addr.Port() != 999 {
				t.Errorf("%s: %v", when, h.Candidates)
			}
			if h.Claims != nil {
				t.Errorf("%s: claims of the dead one", when)
			}
		}
		check("at once")
		for _, m := range old {
			n.deliver(b.key.Overlay(), datagram{m, &net.UDPAddr{IP: a.key.Overlay().AsSlice(), Port: Port}})
		}
		time.Sleep(time.Second)
		check("after late messages")
		if c := b.count("hello_peer_restart_total", ""); c != 1 {
			t.Errorf("%d restarts", c)
		}
		if c := b.count("hello_drop_total", "stale"); c < uint64(len(old)) {
			t.Errorf("%d stale messages, want %d", c, len(old))
		}
		if u := b.updated(TopicClaims); u != 2 {
			t.Errorf("%d updates of claims, want said and gone", u)
		}
	})
}

func TestReachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var reachable atomic.Bool
		a := n.start(t, 1, func(c *Config) { c.Reachable = func(key.Public) bool { return reachable.Load() } })
		b := n.start(t, 2, nil)
		defer a.stop()
		defer b.stop()
		a.SetActive(b.key, true)
		a.must(a.SetCandidates(b.key, someCandidates(1)))
		time.Sleep(time.Minute)
		if c := n.count(a); c != 0 {
			t.Errorf("%d messages to somebody who is not reachable", c)
		}
		reachable.Store(true)
		a.Resend(b.key)
		time.Sleep(15 * time.Millisecond)
		if b.Of(a.key).Candidates == nil {
			t.Error("not said when reachable")
		}
		// On change also without being active; never again after Forget.
		a.SetActive(b.key, false)
		a.must(a.SetCandidates(b.key, someCandidates(2)))
		time.Sleep(15 * time.Millisecond)
		if c := b.Of(a.key).Candidates; c == nil || c.Addrs[0].Addr.Port() != 2 {
			t.Errorf("heard %v", c)
		}
		a.Forget(b.key)
		before := n.count(a)
		time.Sleep(time.Hour)
		if c := n.count(a) - before; c != 0 {
			t.Errorf("%d messages to a forgotten peer", c)
		}
		a.must(a.SetCandidates(b.key, someCandidates(3)))
		time.Sleep(15 * time.Millisecond)
		if c := b.Of(a.key).Candidates; c == nil || c.Addrs[0].Addr.Port() != 3 {
			t.Errorf("after Forget: heard %v", c)
		}
	})
}

// A name that the plan does not have yet is left out, and found later.
func TestUnknownNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		stranger := peerKey(77)
		var known atomic.Bool
		a := n.start(t, 1, nil)
		b := n.start(t, 2, func(c *Config) {
			peerOf := c.PeerOf
			c.Named = func(o netip.Addr) (key.Public, bool) {
				if o == stranger.Overlay() && known.Load() {
					return stranger, true
				}
				return peerOf(o)
			}
		})
		defer a.stop()
		defer b.stop()
		a.SetActive(b.key, true)
		a.must(a.SetCosts(b.key, Costs{[]Link{{To: stranger}, {To: b.key}}}))
		time.Sleep(20 * time.Millisecond)
		want(t, &Costs{[]Link{{To: b.key}}}, b.Of(a.key).Costs)
		if c := b.count("hello_entry_ignored_total", "unknown_name"); c != 1 {
			t.Errorf("%d unknown names", c)
		}
		known.Store(true)
		b.Renamed()
		want(t, &Costs{[]Link{{To: stranger}, {To: b.key}}}, b.Of(a.key).Costs)
		if u := b.updated(TopicCosts); u != 2 {
			t.Errorf("%d updates, want 2", u)
		}
	})
}

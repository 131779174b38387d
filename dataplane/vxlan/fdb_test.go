package vxlan

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func TestFDB(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	mac := MAC{2, 0, 0, 0, 0, 1}
	start := time.Unix(1000, 0)
	var f fdb
	for _, step := range []struct {
		name  string
		now   time.Duration
		learn netip.Addr // zero: only look
		want  netip.Addr
	}{
		{"unknown", 0, netip.Addr{}, netip.Addr{}},
		{"new", 0, a, a},
		{"moved at once", time.Second, b, b},
		{"moved back", 2 * time.Second, a, a},
		{"still there", 250 * time.Second, netip.Addr{}, a},
		{"renewed", 251 * time.Second, a, a},
		{"renewal counts", 550 * time.Second, netip.Addr{}, a},
		{"aged out", 551 * time.Second, netip.Addr{}, netip.Addr{}},
		{"back after ageing", 600 * time.Second, b, b},
	} {
		now := start.Add(step.now)
		if step.learn.IsValid() {
			f.learn(mac, step.learn, now)
		}
		if got, ok := f.lookup(mac, now); got != step.want || ok != step.want.IsValid() {
			t.Fatalf("%s: %s, %t, want %s", step.name, got, ok, step.want)
		}
	}
}

func TestFDBBound(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.1")
	now := time.Unix(1000, 0)
	var f fdb
	mac := func(i int) MAC { return MAC{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)} }
	for i := range 10 * maxLearned {
		f.learn(mac(i), a, now)
	}
	if n := f.len(); n != maxLearned {
		t.Fatalf("%d entries, want %d", n, maxLearned)
	}
	if got := f.full.Load(); got != 9*maxLearned {
		t.Errorf("full = %d, want %d", got, 9*maxLearned)
	}
	// A move needs no room, and ageing makes some.
	b := netip.MustParseAddr("10.0.0.2")
	f.learn(mac(0), b, now.Add(time.Second))
	if got, _ := f.lookup(mac(0), now.Add(time.Second)); got != b {
		t.Errorf("moved MAC at %s, want %s", got, b)
	}
	f.learn(mac(-1), b, now.Add(maxAge))
	if got, ok := f.lookup(mac(-1), now.Add(maxAge)); !ok || got != b {
		t.Errorf("no room after ageing: %s, %t", got, ok)
	}
	if n := f.len(); n != 2 {
		t.Errorf("%d entries after ageing, want 2", n)
	}
	f.keep(&vtepTable{byAddr: map[netip.Addr]*vtep{a: {}}})
	if n := f.len(); n != 0 {
		t.Errorf("%d entries of a VTEP that is gone", n)
	}
}

// TestFDBOracle compares with a log of every frame, read backwards. Entries may
// go up to refreshAge early, never late, and never point elsewhere.
func TestFDBOracle(t *testing.T) {
	type frame struct {
		mac  MAC
		vtep netip.Addr
		at   time.Time
	}
	rng := rand.New(rand.NewPCG(5, 6))
	var f fdb
	var log []frame
	now := time.Unix(1000, 0)
	for range 20000 {
		now = now.Add(time.Duration(rng.IntN(5000)) * time.Millisecond)
		mac := MAC{2, 0, 0, 0, 0, byte(rng.IntN(40))}
		if rng.IntN(3) == 0 {
			v := netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(4))})
			f.learn(mac, v, now)
			log = append(log, frame{mac, v, now})
			continue
		}
		got, ok := f.lookup(mac, now)
		var last frame
		for i := len(log) - 1; i >= 0; i-- {
			if log[i].mac == mac {
				last = log[i]
				break
			}
		}
		age := now.Sub(last.at)
		switch {
		case ok && (got != last.vtep || age >= maxAge):
			t.Fatalf("lookup %s, last frame from %s %s ago", got, last.vtep, age)
		case !ok && age < maxAge-refreshAge:
			t.Fatalf("forgotten %s after a frame from %s", age, last.vtep)
		}
	}
}

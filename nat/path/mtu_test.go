package path

import (
	"strings"
	"testing"
	"time"
)

// narrow answers plain probes, and padded ones up to limit bytes of payload.
func (w *world) narrow(limit *int, way Way) {
	w.rtt = func(p SendProbe) time.Duration {
		if p.Way != way || p.Size > *limit {
			return -1
		}
		return 20 * ms
	}
}

func TestMTUSearch(t *testing.T) {
	for limit := 1184 + 32; limit <= 1500; limit += 4 {
		w := newWorld(t, 1)
		w.do(remote(NAT{Mapping: MappingNone}, Candidate{Host, far4.To}))
		w.narrow(&limit, far4)
		w.do(Wanted{})
		w.run(30 * time.Second)
		want := min((limit-32)&^15, 1408)
		st := w.m.Status()
		if st.MTU != want || w.mtu != want {
			t.Fatalf("payload limit %d: MTU %d, told %d, want %d", limit, st.MTU, w.mtu, want)
		}
		if st.MTU6 < 1280 {
			t.Errorf("MTU for IPv6 %d", st.MTU6)
		}
		for _, s := range w.sends {
			if s.Size != 0 && (!s.DF || (s.Size-32)%16 != 0 || s.Size < 1184+32 || s.Size > 1408+32) {
				t.Fatalf("probe %+v", s)
			}
		}
	}
}

func TestMTUJumbo(t *testing.T) {
	limit := 8000
	w := newWorld(t, 1)
	w.m = New(Config{Rand: w.m.cfg.Rand, MaxMTU: 8912})
	w.do(remote(NAT{Mapping: MappingNone}, Candidate{Host, far4.To}))
	w.narrow(&limit, far4)
	w.do(Wanted{})
	w.run(30 * time.Second)
	if w.mtu != (8000-32)&^15 {
		t.Errorf("MTU %d", w.mtu)
	}
}

func TestMTUBlackHoleAndRaise(t *testing.T) {
	limit := 1472
	w := newWorld(t, 1)
	w.do(remote(NAT{Mapping: MappingNone}, Candidate{Host, far4.To}))
	w.narrow(&limit, far4)
	n, stuck := uint64(0), time.Time{}
	w.traffic = func() Traffic {
		n++
		if !stuck.IsZero() && w.mtu+32 > limit {
			return Traffic{Sent: n, Received: 5, Heard: stuck} // full-sized segments vanish
		}
		return Traffic{Sent: n, Received: n, Heard: w.now}
	}
	w.do(Wanted{})
	w.run(40 * time.Second)
	if w.mtu != 1408 {
		t.Fatalf("MTU %d", w.mtu)
	}
	limit, stuck = 1300, w.now
	w.run(2500 * ms)
	if w.mtu+32 > limit {
		t.Errorf("MTU %d, 2.5 s after the way became narrow", w.mtu)
	}
	w.run(20 * time.Second)
	if w.mtu != (1300-32)&^15 {
		t.Errorf("MTU %d", w.mtu)
	}
	w.wantUsed(far4)
	if len(w.m.Status().Transitions) != 1 {
		t.Errorf("transitions %v", w.m.Status().Transitions)
	}
	limit = 1472
	w.run(11 * time.Minute)
	if w.mtu != 1408 {
		t.Errorf("MTU %d, not raised again", w.mtu)
	}
}

func TestMTUNoBlackHoleWhenTheWayDies(t *testing.T) {
	w := busy(t, far4, over(1))
	if w.mtu != 1408 {
		t.Fatalf("MTU %d", w.mtu)
	}
	w.m.cur.mtu.test(w.now)
	w.silence(far4)
	w.run(10 * time.Second)
	w.wantUsed(over(1))
	for _, l := range w.log {
		if strings.Contains(l, "mtu 1184") {
			t.Error(l)
		}
	}
}

func TestTooBig(t *testing.T) {
	w := busy(t, far4, over(1))
	w.do(TooBig{Way: far4, Size: 1408 + 32})
	if w.mtu != 1360 {
		t.Errorf("MTU %d", w.mtu)
	}
	w.run(10 * time.Second)
	if w.mtu != 1392 {
		t.Errorf("MTU %d after the search", w.mtu)
	}
	w.do(TooBig{Way: far4, Size: 10})
	if w.mtu != 1184 {
		t.Errorf("MTU %d", w.mtu)
	}
}

func TestStreamHasNoMTUSearch(t *testing.T) {
	w := newWorld(t, 1)
	w.do(remote(NAT{Blocked: true}))
	w.do(RelaysChanged{[]RelayWay{{Way: stream}}})
	w.rtt = answered(20*ms, stream)
	w.do(Wanted{})
	w.run(10 * time.Second)
	if w.mtu != 1408 {
		t.Errorf("MTU %d", w.mtu)
	}
	for _, s := range w.sends {
		if s.Size != 0 || s.DF || s.TTL != 0 {
			t.Errorf("probe %+v", s)
		}
	}
}

package path

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestFirstPacketOverRelayThenDirect(t *testing.T) {
	w := newWorld(t, 1)
	far := direct("198.51.100.1:4500")
	w.do(RelaysChanged{[]RelayWay{relay(1, 40*ms), relay(2, 20*ms)}})
	w.do(remote(natted, srflx("198.51.100.1:4500")))
	w.do(Wanted{})
	w.wantUsed(over(2))
	w.wantWhy(ReasonProbing)
	w.rtt = func(p SendProbe) time.Duration {
		if p.TTL == 0 {
			return 30 * ms
		}
		return -1 // openers do not reach the peer
	}
	w.run(740 * ms)
	w.wantUsed(far)
	w.wantWhy(ReasonBest)
	st := w.m.Status()
	if len(st.Transitions) != 2 || st.Transitions[1].Cause != ReasonProven || st.RTT != 30*ms || !st.Proven {
		t.Errorf("status %+v", st)
	}
	if i := strings.Index(strings.Join(w.log, "\n"), "announce true"); i < 0 {
		t.Errorf("the peer was not called: %v", w.log)
	}
}

func TestNoNATIsDirectInOneRoundTrip(t *testing.T) {
	w := newWorld(t, 1)
	far := direct("10.0.0.2:4500")
	w.do(RelaysChanged{[]RelayWay{relay(1, 40*ms)}})
	w.do(remote(natted, Candidate{Host, addr("10.0.0.2:4500")}, srflx("198.51.100.1:4500")))
	w.rtt = answered(10*ms, far)
	w.do(Wanted{})
	w.run(10 * ms)
	w.wantUsed(far)
}

func TestAnswersThatProveNothing(t *testing.T) {
	far := direct("198.51.100.1:4500")
	tests := []struct {
		name string
		edit func(*AnswerIn)
	}{
		{"another transaction", func(a *AnswerIn) { a.Tx[0]++ }},
		{"another address", func(a *AnswerIn) { a.Way.To = addr("198.51.100.1:4501") }},
		{"another socket", func(a *AnswerIn) { a.Way.Socket = 7 }},
		{"over a relay", func(a *AnswerIn) { a.Way = over(1) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.do(remote(natted, srflx("198.51.100.1:4500")))
			w.do(Wanted{})
			a := AnswerIn{Way: far, Tx: w.sends[0].Tx}
			tt.edit(&a)
			w.do(a)
			if w.used != (Way{}) || w.m.Status().BadAnswers != 1 {
				t.Errorf("used %v, bad answers %d", w.used, w.m.Status().BadAnswers)
			}
		})
	}
	t.Run("late", func(t *testing.T) {
		w := newWorld(t, 1)
		w.do(remote(natted, srflx("198.51.100.1:4500")))
		w.do(Wanted{})
		tx := w.sends[0].Tx
		w.run(flightFor)
		w.do(AnswerIn{Way: far, Tx: tx})
		w.wantUsed(Way{})
	})
	t.Run("replayed", func(t *testing.T) {
		w := newWorld(t, 1)
		w.do(remote(natted, srflx("198.51.100.1:4500")))
		w.do(Wanted{})
		w.do(AnswerIn{Way: far, Tx: w.sends[0].Tx})
		w.do(AnswerIn{Way: far, Tx: w.sends[0].Tx})
		if st := w.m.Status(); !st.Proven || st.BadAnswers != 1 {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("over another label of the same hub", func(t *testing.T) {
		w := newWorld(t, 1)
		w.do(remote(natted, srflx("198.51.100.1:4500")))
		w.do(RelaysChanged{[]RelayWay{relay(1, 0)}})
		w.do(Wanted{})
		for _, s := range w.sends {
			if s.Way == over(1) {
				back := over(1)
				back.Label = 99
				w.do(AnswerIn{Way: back, Tx: s.Tx})
			}
		}
		if st := w.m.Status(); !st.Heard.IsZero() || st.BadAnswers != 1 {
			t.Errorf("status %+v", st) // that circuit may lead over another relay
		}
	})
}

// changesIn runs five minutes with traffic and returns how often the path
// changed after the first half minute.
func changesIn(t *testing.T, seed uint64, jitter float64, base map[Way]time.Duration) (changes int, last Way) {
	w := newWorld(t, seed)
	rnd := rand.New(rand.NewPCG(seed, 7))
	w.do(RelaysChanged{[]RelayWay{relay(1, 0), relay(2, 0)}})
	w.do(LocalChanged{Local{NAT: NAT{Mapping: MappingNone}}})
	w.do(remote(NAT{Mapping: MappingNone}, Candidate{Host, addr("198.51.100.1:4500")}, Candidate{Host, addr("[2001:db8::1]:4500")}))
	w.rtt = func(p SendProbe) time.Duration {
		d, ok := base[p.Way]
		if !ok {
			return -1
		}
		return time.Duration(float64(d) * (1 - jitter + 2*jitter*rnd.Float64()))
	}
	var n uint64
	w.traffic = func() Traffic {
		n += 10
		return Traffic{Sent: n, Received: n, Heard: w.now}
	}
	w.do(Wanted{})
	w.run(30 * time.Second)
	before := len(w.m.Status().Transitions)
	w.run(5 * time.Minute)
	return len(w.m.Status().Transitions) - before, w.used
}

func TestNoFlapUnderJitter(t *testing.T) {
	v4, v6 := direct("198.51.100.1:4500"), direct("[2001:db8::1]:4500")
	for _, gap := range []time.Duration{0, 2 * ms, 5 * ms} {
		for seed := range uint64(30) {
			base := map[Way]time.Duration{v4: 50 * ms, v6: 50*ms + gap, over(1): 50*ms + gap, over(2): 55 * ms}
			if n, _ := changesIn(t, seed, 0.2, base); n != 0 {
				t.Errorf("gap %v, seed %d: %d changes of the path", gap, seed, n)
			}
		}
	}
}

func TestCheapestWins(t *testing.T) {
	v4, v6 := direct("198.51.100.1:4500"), direct("[2001:db8::1]:4500")
	tests := []struct {
		name string
		base map[Way]time.Duration
		want Way
	}{
		{"direct over a relay as good", map[Way]time.Duration{v4: 50 * ms, over(1): 50 * ms}, v4},
		{"a relay that is clearly better", map[Way]time.Duration{v4: 200 * ms, over(1): 60 * ms, over(2): 40 * ms}, over(2)},
		{"the better family", map[Way]time.Duration{v4: 80 * ms, v6: 30 * ms, over(1): 100 * ms}, v6},
		{"no direct way", map[Way]time.Duration{over(1): 20 * ms, over(2): 90 * ms}, over(1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(5) {
				if _, got := changesIn(t, seed, 0.2, tt.base); got != tt.want {
					t.Errorf("seed %d: path is %v, want %v", seed, got, tt.want)
				}
			}
		})
	}
}

// A relay that is about to stop is left at once for one that stays, however
// much cheaper it is, and kept when there is none.
func TestLeavingRelay(t *testing.T) {
	leaving := func(r RelayWay) RelayWay { r.Leaving = true; return r }
	w := newWorld(t, 1)
	w.do(RelaysChanged{[]RelayWay{relay(1, 10*ms), relay(2, 400*ms)}})
	w.do(Wanted{})
	w.wantUsed(over(1))
	w.do(RelaysChanged{[]RelayWay{leaving(relay(1, 10*ms)), relay(2, 400*ms)}})
	w.wantUsed(over(2))
	if st := w.m.Status(); st.Transitions[len(st.Transitions)-1].Cause != ReasonLeaving {
		t.Errorf("transitions %+v", st.Transitions)
	}
	w.do(RelaysChanged{[]RelayWay{leaving(relay(1, 10*ms)), leaving(relay(2, 400*ms))}})
	w.wantUsed(over(2))
	w.do(RelaysChanged{[]RelayWay{leaving(relay(2, 400*ms))}})
	w.wantUsed(over(2))
}

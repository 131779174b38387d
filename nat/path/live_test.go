package path

import (
	"strings"
	"testing"
	"time"
)

var (
	far4 = direct("198.51.100.1:4500")
	far6 = direct("[2001:db8::1]:4500")
)

// busy is a world with two direct ways and a relay, in use for 20 seconds.
func busy(t testing.TB, ways ...Way) *world {
	w := newWorld(t, 3)
	w.do(RelaysChanged{[]RelayWay{relay(1, 60*ms)}})
	w.do(remote(NAT{Mapping: MappingNone}, Candidate{Host, far4.To}, Candidate{Host, far6.To}))
	w.rtt = func(p SendProbe) time.Duration {
		for i, way := range ways {
			if p.Way == way {
				return time.Duration(20+30*i) * ms
			}
		}
		return -1
	}
	var n uint64
	w.traffic = func() Traffic {
		n += 10
		return Traffic{Sent: n, Received: n, Heard: w.now}
	}
	w.do(Wanted{})
	w.run(20 * time.Second)
	w.wantUsed(ways[0])
	w.clearLog()
	return w
}

// silence ends all answers on ways; data is still sent.
func (w *world) silence(ways ...Way) {
	old, last := w.rtt, w.now
	w.rtt = func(p SendProbe) time.Duration {
		for _, way := range ways {
			if p.Way == way {
				return -1
			}
		}
		return old(p)
	}
	s, r := w.m.live.sent, w.m.live.received
	w.traffic = func() Traffic {
		s += 10
		heard := last
		for _, way := range ways {
			if w.used == way {
				return Traffic{Sent: s, Received: r, Heard: heard}
			}
		}
		r += 10
		return Traffic{Sent: s, Received: r, Heard: w.now}
	}
}

func TestDeadWayIsLeftWithinASecond(t *testing.T) {
	tests := []struct {
		name string
		ways []Way
		dead []Way
		want Way
	}{
		{"direct to direct", []Way{far4, far6, over(1)}, []Way{far4}, far6},
		{"direct to relay", []Way{far4, over(1)}, []Way{far4}, over(1)},
		{"both direct ways to relay", []Way{far4, far6, over(1)}, []Way{far4, far6}, over(1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := busy(t, tt.ways...)
			w.silence(tt.dead...)
			w.run(time.Second)
			if len(tt.dead) == 1 || w.used != tt.dead[0] {
				w.wantUsed(tt.want)
			}
			w.run(time.Second)
			w.wantUsed(tt.want)
			last := w.m.Status().Transitions
			if got := last[len(last)-1].Cause; got != ReasonSilent {
				t.Errorf("cause is %q", got.Code())
			}
		})
	}
}

func TestIdleButWantedWayIsWatched(t *testing.T) {
	w := busy(t, far4, over(1))
	w.traffic = nil
	w.do(Wanted{})
	w.silence(far4)
	w.traffic = nil
	w.run(warmQuiet + 2*time.Second)
	w.wantUsed(over(1))
}

func TestOneWayTrafficIsNoDeath(t *testing.T) {
	w := busy(t, far4, far6, over(1))
	heard, s, r := w.now, w.m.live.sent, w.m.live.received
	w.traffic = func() Traffic {
		s += 10
		return Traffic{Sent: s, Received: r, Heard: heard}
	}
	w.run(time.Minute)
	w.wantUsed(far4)
	if n := len(w.m.Status().Transitions); n != 2 {
		t.Errorf("%d transitions", n)
	}
	if per := float64(len(w.sends)) / 60; per > 10 {
		t.Errorf("%.1f probes a second", per)
	}
}

func TestPeerStartedAnew(t *testing.T) {
	// Nothing is answered any more: its probe key is another.
	w := busy(t, far4, over(1))
	w.silence(far4, far6, over(1))
	w.run(2500 * ms)
	w.wantUsed(over(1))
	shakes := 0
	for _, l := range w.log {
		if strings.HasSuffix(l, "Handshake{}") {
			shakes++
		}
	}
	if shakes < 1 || shakes > 3 {
		t.Errorf("%d handshakes in %v", shakes, w.log)
	}
}

func TestHubDies(t *testing.T) {
	w := newWorld(t, 1)
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms), relay(2, 40*ms)}})
	w.do(remote(natted))
	w.rtt = answered(20*ms, over(1), over(2))
	w.do(Wanted{})
	w.run(5 * time.Second)
	w.wantUsed(over(1))
	w.do(Lost{Way: over(1), Why: "hub is gone"})
	w.wantUsed(over(2))
	tr := w.m.Status().Transitions
	if last := tr[len(tr)-1]; last.Cause != ReasonLost || last.Detail != "hub is gone" {
		t.Errorf("transition %+v", last)
	}
	w.do(RelaysChanged{nil})
	w.wantUsed(Way{})
	w.wantWhy(ReasonNoCandidates)
}

func TestRelabelledRelay(t *testing.T) {
	w := newWorld(t, 1)
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms)}})
	w.do(Wanted{})
	r := relay(1, 20*ms)
	r.Way.Label = 77
	w.do(RelaysChanged{[]RelayWay{r}})
	w.wantUsed(r.Way)
}

func TestIdleCostsNothing(t *testing.T) {
	w := busy(t, far4, over(1))
	w.traffic = nil
	w.run(2 * activeFor)
	if d := w.m.Deadline(); !d.IsZero() {
		t.Fatalf("deadline %v", d)
	}
	w.wantWhy(ReasonIdle)
	w.wantUsed(far4)
	w.clearLog()
	for _, ev := range []Event{
		Tick{},
		ProbeIn{Way: far4},
		ProbeIn{Way: far6},
		ProbeIn{Way: direct("198.51.100.9:1")},
		RelaysChanged{[]RelayWay{relay(1, 70*ms)}},
		remote(natted, Candidate{Host, far4.To}),
		LocalChanged{Local{}},
		NetworkChanged{"test"},
		Lost{Way: over(1)},
		Traffic{Sent: w.m.live.sent, Received: w.m.live.received},
		TooBig{Way: far4, Size: 1400},
	} {
		if acts := w.do(ev); len(acts) != 0 || !w.m.Deadline().IsZero() {
			t.Errorf("idle: %T did %v", ev, acts)
		}
	}
}

func TestReprovenAfterAPause(t *testing.T) {
	w := busy(t, far4, over(1))
	w.traffic = nil
	w.run(10 * time.Minute)
	w.clearLog()
	w.do(Wanted{})
	w.wantUsed(over(1))
	w.wantWhy(ReasonProbing)
	w.run(20 * ms)
	w.wantUsed(far4)
	if len(w.m.Status().Transitions) != 4 {
		t.Errorf("transitions %v", w.m.Status().Transitions)
	}
}

func TestReprovenAfterAShortPause(t *testing.T) {
	w := busy(t, far4, over(1))
	w.traffic = nil
	w.m.until = w.now.Add(ms)
	w.run(5 * time.Second)
	w.do(Wanted{})
	w.run(time.Second)
	w.wantUsed(far4)
	if len(w.m.Status().Transitions) != 2 {
		t.Errorf("transitions %v", w.m.Status().Transitions)
	}
}

func TestNetworkChanged(t *testing.T) {
	w := busy(t, far4, over(1))
	w.do(NetworkChanged{"new address"})
	w.run(time.Second)
	w.wantUsed(far4) // it works as before
	if n := len(w.m.Status().Transitions); n != 2 {
		t.Errorf("%d transitions: a path that works was left", n)
	}
	w.silence(far4)
	w.do(NetworkChanged{"another address"})
	w.run(600 * ms)
	w.wantUsed(over(1))
	log := w.m.Status().Transitions
	if last := log[len(log)-1]; last.Cause != ReasonNetworkChanged || last.Detail != "another address" {
		t.Errorf("the cause is %v, %q", last.Cause, last.Detail)
	}
}

func TestWarmFollowsLifetime(t *testing.T) {
	gap := func(lifetime time.Duration) time.Duration {
		w := busy(t, far4, over(1))
		w.traffic = nil
		w.do(LocalChanged{Local{NAT: NAT{Mapping: MappingEndpointIndependent, Lifetime: lifetime}}})
		w.run(20 * time.Second) // quiet from here
		w.do(Wanted{})
		w.clearLog()
		w.run(31 * time.Second)
		n := 0
		for _, s := range w.sends {
			if s.Way == far4 && s.Size == 0 {
				n++
			}
		}
		return 31 * time.Second / time.Duration(max(n, 1))
	}
	long, short := gap(0), gap(10*time.Second)
	if long < 10*time.Second || short > 7*time.Second {
		t.Errorf("a probe each %v, and each %v with a lifetime of 10 s", long, short)
	}
}

func TestUDPBlocked(t *testing.T) {
	tests := []struct {
		name          string
		local, remote NAT
		want          Reason
	}{
		{"here", NAT{Blocked: true}, natted, ReasonLocalBlocked},
		{"there", natted, NAT{Blocked: true}, ReasonRemoteBlocked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.do(LocalChanged{Local{NAT: tt.local}})
			w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms)}})
			w.do(remote(tt.remote, srflx("198.51.100.1:4500")))
			w.rtt = answered(20*ms, over(1))
			w.do(Wanted{})
			w.run(40 * time.Second)
			w.wantUsed(over(1))
			w.wantWhy(tt.want)
			for _, s := range w.sends {
				if s.Way.Kind == Direct {
					t.Fatalf("probe on %v", s.Way)
				}
			}
		})
	}
}

func TestSurvivorIsTheRelayThatWorkedLast(t *testing.T) {
	w := newWorld(t, 1)
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms), relay(2, 60*ms)}})
	w.do(remote(NAT{Mapping: MappingNone}, Candidate{Host, far4.To}))
	w.rtt = answered(20*ms, far4, over(1), over(2))
	var n uint64
	w.traffic = func() Traffic {
		n += 10
		return Traffic{Sent: n, Received: n, Heard: w.now}
	}
	w.do(Wanted{})
	w.run(20 * time.Second)
	w.wantUsed(far4)
	w.rtt = answered(20*ms, far4, over(2)) // hub 1 dies
	w.run(40 * time.Second)
	w.wantUsed(far4)
	w.silence(far4, over(2)) // and then everything
	w.run(1500 * ms)
	w.wantUsed(over(2))
}

// TestSteadyFlowStops has a peer that only answers: when what it answers stops
// coming it has nothing to send, and must notice all the same.
func TestSteadyFlowStops(t *testing.T) {
	w := busy(t, far4, over(1))
	w.silence(far4)
	heard, s, r := w.now, w.m.live.sent, w.m.live.received
	w.traffic = func() Traffic {
		if w.used != far4 {
			r += 10
			return Traffic{Sent: s, Received: r, Heard: w.now}
		}
		return Traffic{Sent: s, Received: r, Heard: heard}
	}
	w.run(700 * ms)
	w.wantUsed(over(1))
}

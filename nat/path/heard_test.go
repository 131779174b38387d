package path

import (
	"strings"
	"testing"
	"time"
)

// lines returns what was done that contains text.
func (w *world) lines(text string) (out []string) {
	for _, l := range w.log {
		if strings.Contains(l, text) {
			out = append(out, l)
		}
	}
	return out
}

// unkeyed is a peer behind two relays that has not told its probe key, in use
// for a second, and last heard at the time that is returned.
func unkeyed(t *testing.T) (w *world, last time.Time) {
	w = newWorld(t, 1)
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms), relay(2, 40*ms)}})
	w.do(Wanted{})
	var n uint64
	w.traffic = func() Traffic {
		n++
		last = w.now
		return Traffic{Sent: n, Received: n, Heard: w.now}
	}
	w.run(time.Second)
	w.wantUsed(over(1))
	w.traffic = nil
	return w, last
}

// deaf is a peer with two relays and a direct way that answers nothing any more.
func deaf(t *testing.T) *world {
	w := busy(t, far4, over(1))
	w.do(RelaysChanged{[]RelayWay{relay(1, 60*ms), relay(2, 90*ms)}})
	w.silence(far4, over(1), over(2))
	w.run(3 * time.Second)
	if w.used.Kind != Relay || !w.m.cur.dead {
		t.Fatalf("path is %v, dead: %v", w.used, w.m.cur.dead)
	}
	return w
}

func TestHeardElsewhere(t *testing.T) {
	label := over(2)
	label.Label = 99 // of the way back
	after := func(d time.Duration) func(t *testing.T) *world {
		return func(t *testing.T) *world {
			w, last := unkeyed(t)
			w.now = last.Add(d)
			return w
		}
	}
	for _, tt := range []struct {
		name  string
		world func(t *testing.T) *world
		heard Way
		want  Way
	}{
		{"probed, alive", func(t *testing.T) *world { return busy(t, far4, over(1)) }, over(1), far4},
		{"probed, silent but not dead yet", func(t *testing.T) *world {
			w := busy(t, far4, over(1))
			w.silence(far4)
			w.run(500 * ms)
			return w
		}, over(1), far4},
		{"no key, just heard", after(silentFor - ms), over(2), over(1)},
		{"no key, silent", after(silentFor), over(2), over(2)},
		{"no key, silent, with the label of the way back", after(silentFor), label, over(2)},
		{"no key, silent, the way in use", after(silentFor), over(1), over(1)},
		{"no key, silent, a relay that is not offered", after(silentFor), over(3), over(1)},
		{"no key, silent, a direct way", after(silentFor), far4, over(1)},
		{"no key, silent, a stream", after(silentFor), stream, over(1)},
		{"key told a moment ago, silent", func(t *testing.T) *world {
			w, last := unkeyed(t)
			w.now = last.Add(silentFor)
			w.do(remote(NAT{Mapping: MappingAddressAndPortDependent}))
			return w
		}, over(2), over(2)},
		{"no key, in use for a moment", func(t *testing.T) *world {
			w, last := unkeyed(t)
			w.now = last.Add(10 * silentFor)
			w.m.since = w.now.Add(ms - silentFor)
			return w
		}, over(2), over(1)},
		{"idle", func(t *testing.T) *world {
			w, _ := unkeyed(t)
			w.run(2 * activeFor)
			return w
		}, over(2), over(1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := tt.world(t)
			w.do(Heard{tt.heard})
			w.wantUsed(tt.want)
		})
	}
}

func TestHeardOnADeadPath(t *testing.T) {
	w := deaf(t)
	to := over(1)
	if w.used == to {
		to = over(2)
	}
	w.do(Heard{w.used})
	if w.used == to {
		t.Fatal("it left the way on which the peer was heard")
	}
	w.do(Heard{to})
	w.wantUsed(to)
	tr := w.m.Status().Transitions
	if last := tr[len(tr)-1]; last.Cause != ReasonSilent || last.Detail == "" {
		t.Errorf("transition %+v", last)
	}
	if w.m.cur.dead {
		t.Error("the way on which the peer was heard counts as dead")
	}
}

func TestSuspect(t *testing.T) {
	w := busy(t, far4, over(1))
	w.clearLog()
	w.do(Suspect{})
	if n := len(w.lines("Silent")); n != 1 {
		t.Errorf("%d times silent in %v", n, w.log)
	}
	probed := map[Way]int{}
	for _, s := range w.sends {
		probed[s.Way]++
	}
	if probed[far4] != 1 || probed[over(1)] != 1 {
		t.Errorf("probes %v", w.log)
	}
	w.do(Suspect{}) // the check is under way
	if n := len(w.lines("Silent")); n != 1 {
		t.Errorf("a second check: %v", w.log)
	}
	w.run(10 * time.Second)
	w.wantUsed(far4) // it answered
	if n := len(w.m.Status().Transitions); n != 2 {
		t.Errorf("%d transitions", n)
	}

	w.silence(far4)
	w.run(30 * ms) // answers are under way
	w.do(Suspect{})
	w.run(checkLeast)
	w.wantUsed(over(1)) // it would have been checked only now
}

func TestSuspectIgnored(t *testing.T) {
	for _, tt := range []struct {
		name  string
		world func(t *testing.T) *world
	}{
		{"idle", func(t *testing.T) *world {
			w := busy(t, far4, over(1))
			w.traffic = nil
			w.run(2 * activeFor)
			return w
		}},
		{"no key", func(t *testing.T) *world { w, _ := unkeyed(t); return w }},
		{"no way", func(t *testing.T) *world {
			w := newWorld(t, 1)
			w.do(remote(natted))
			w.do(Wanted{})
			return w
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := tt.world(t)
			w.clearLog()
			if acts := w.do(Suspect{}); len(acts) != 0 {
				t.Errorf("did %v", acts)
			}
			w.do(Tick{})
			if len(w.lines("Silent")) != 0 {
				t.Errorf("checked: %v", w.log)
			}
		})
	}
}

// TestSilentOncePerCheck lets a way fall silent, answer its check, and fall
// silent for good.
func TestSilentOncePerCheck(t *testing.T) {
	w := busy(t, far4, over(1))
	dead := w.m.live.sent
	heard := w.now
	w.traffic = func() Traffic { // one way only: the check is answered
		dead += 10
		return Traffic{Sent: dead, Received: w.m.live.received, Heard: heard}
	}
	w.clearLog()
	w.run(silentFor + 200*ms)
	if n := len(w.lines("Silent")); n != 1 {
		t.Fatalf("%d times silent: %v", n, w.log)
	}
	w.clearLog()
	w.silence(far4)
	w.run(time.Second)
	w.wantUsed(over(1))
	// The check under way ends with what was heard until now; then comes another.
	if n := len(w.lines("Silent")); n < 1 || n > 2 {
		t.Errorf("%d times silent: %v", n, w.log)
	}
	w.traffic = nil
	w.clearLog()
	w.run(20 * time.Second)
	if l := w.lines("Silent"); len(l) != 0 {
		t.Errorf("silent on a way that answers: %v", l)
	}
}

// TestBlindRelaysAlternate has two relays die of which none can be probed: each
// is used in turn, until something comes over one.
func TestBlindRelaysAlternate(t *testing.T) {
	w, last := unkeyed(t)
	n := w.m.live.sent
	w.traffic = func() Traffic {
		n++
		return Traffic{Sent: n, Received: w.m.live.received, Heard: last}
	}
	var when []time.Duration
	for used := w.used; len(when) < 6; {
		w.run(10 * ms)
		if w.used != used {
			used = w.used
			when = append(when, w.now.Sub(last))
		}
		if w.now.Sub(last) > 20*time.Second {
			break
		}
	}
	if len(when) < 6 {
		t.Fatalf("changed after %v only", when)
	}
	for i, at := range when {
		from := time.Duration(0)
		if i > 0 {
			from = when[i-1]
		}
		// Counted from the sample before.
		if gap := at - from; gap < relayPatience-100*ms || gap > patience {
			t.Errorf("change %d after %v", i, gap)
		}
	}
	w.wantUsed(over(1)) // six changes later

	alive := over(2)
	w.traffic = func() Traffic {
		n++
		if w.used == alive {
			last = w.now
		}
		return Traffic{Sent: n, Received: w.m.live.received, Heard: last}
	}
	w.run(2 * time.Second)
	w.wantUsed(alive)
	w.run(30 * time.Second)
	w.wantUsed(alive)
	if len(w.sends) != 0 {
		t.Errorf("probes without a key: %v", w.sends)
	}
}

// TestALoneBlindRelayIsKept has no other relay to go to.
func TestALoneBlindRelayIsKept(t *testing.T) {
	w, last := unkeyed(t)
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms)}})
	n := w.m.live.sent
	w.traffic = func() Traffic {
		n++
		return Traffic{Sent: n, Received: w.m.live.received, Heard: last}
	}
	w.clearLog()
	w.run(patience - 150*ms)
	if len(w.lines("Handshake")) != 0 {
		t.Errorf("no patience: %v", w.log)
	}
	w.run(10 * time.Second)
	w.wantUsed(over(1))
	if len(w.lines("Handshake")) == 0 {
		t.Error("no handshake")
	}
	if tr := w.m.Status().Transitions; len(tr) != 1 {
		t.Errorf("transitions %v", tr)
	}
}

// TestAskedOn has a peer that sends to us, and is not sent to, probe another relay,
// as it does when it finds the one in use silent: we check that one, too.
func TestAskedOn(t *testing.T) {
	label := over(2)
	label.Label = 99
	for _, tt := range []struct {
		name   string
		dead   bool
		heard  time.Duration // since the last sign of life on the way in use
		data   time.Duration // since the last data
		before time.Duration // since the last check that began so; 0: none
		on     Way
		want   Way
		asked  bool
	}{
		{"dead", true, silentFor, silentFor, 0, over(2), over(2), true},
		{"dead, asked long ago", true, silentFor, silentFor, askedGap + ms, over(2), over(2), true},
		{"dead, with the label of the way back", true, silentFor, silentFor, 0, label, over(2), true},
		{"alive", false, silentFor, silentFor, 0, over(2), over(1), true},
		{"heard a moment ago", true, silentFor - ms, 0, 0, over(2), over(1), false},
		{"no data lately", true, askedFor, askedFor, 0, over(2), over(1), false},
		{"asked a moment ago", true, silentFor, silentFor, askedGap, over(2), over(1), false},
		{"on a relay that is not offered", true, silentFor, silentFor, 0, over(3), over(1), false},
		{"on the way in use", true, silentFor, silentFor, 0, over(1), over(1), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := busy(t, over(1), over(2))
			second := relay(1, 90*ms) // another circuit over the hub of the way in use
			second.Way.Label = 77
			w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms), relay(2, 50*ms), second}})
			w.traffic = nil
			w.run(10 * time.Second)
			w.wantUsed(over(1))
			if tt.dead {
				w.silence(over(1))
				w.traffic = nil // no more data: nothing else may begin a check
			}
			w.m.live.expect = time.Time{}
			w.m.cur.heard, w.m.live.data = w.now.Add(-tt.heard), w.now.Add(-tt.data)
			if tt.before > 0 {
				w.m.live.asked = w.now.Add(-tt.before)
			}
			w.clearLog()
			w.do(ProbeIn{Way: tt.on})
			if asked := len(w.probesTo(over(1))) > 0; asked != tt.asked {
				t.Errorf("asked: %v\n%s", asked, strings.Join(w.log, "\n"))
			}
			w.run(checkLeast + ms)
			w.wantUsed(tt.want)
		})
	}
}

// TestAskedWhileChecking: a probe that comes while a check of our own is under way
// begins none, so the next one still may.
func TestAskedWhileChecking(t *testing.T) {
	w := busy(t, over(1), over(2))
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms), relay(2, 50*ms)}})
	w.silence(over(1))
	w.do(Suspect{})
	w.m.cur.heard, w.m.live.data = w.now.Add(-silentFor), w.now
	w.do(ProbeIn{Way: over(2)})
	if at := w.m.live.asked; !at.IsZero() {
		t.Errorf("asked at %v", at)
	}
}

// TestHeardOnALeavingRelay: we left a relay that is about to stop, the peer did not
// yet, and nothing comes over the new one. It may be found dead, once.
func TestHeardOnALeavingRelay(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		w, _ := unkeyed(t)
		w.rtt = func(SendProbe) time.Duration { return -1 }
		leaving := relay(1, 20*ms)
		leaving.Leaving = true
		w.do(RelaysChanged{[]RelayWay{leaving, relay(2, 40*ms)}})
		w.wantUsed(over(2))
		if keyed {
			w.do(remote(NAT{Mapping: MappingAddressAndPortDependent}))
		}
		before := len(w.m.Status().Transitions)
		for range 20 {
			w.now = w.now.Add(silentFor / 4)
			w.do(Heard{over(1)})
		}
		if n := len(w.m.Status().Transitions) - before; n > 1 {
			t.Errorf("keyed %v: %d transitions: %v", keyed, n, w.m.Status().Transitions)
		}
	}
}

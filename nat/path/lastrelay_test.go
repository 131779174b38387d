package path

import (
	"testing"
	"time"
)

// TestSilentRelayIsBetterThanNone takes away the relay in use while the only
// other one is taken for dead: that one is used and probed again, and found to
// work.
func TestSilentRelayIsBetterThanNone(t *testing.T) {
	w := busy(t, far4, over(1), over(2))
	w.do(RelaysChanged{[]RelayWay{relay(1, 60*ms), relay(2, 90*ms)}})
	w.run(time.Minute)
	w.silence(far4, over(2))
	w.run(10 * time.Second)
	w.wantUsed(over(1))
	w.do(RelaysChanged{[]RelayWay{relay(2, 90*ms)}})
	w.wantUsed(over(2))
	w.rtt = func(p SendProbe) time.Duration {
		if p.Way == over(2) {
			return 50 * ms
		}
		return -1
	}
	w.traffic = nil
	w.run(10 * time.Second)
	w.wantUsed(over(2))
	if st := w.m.Status(); !st.Proven {
		t.Errorf("the relay was not proven anew: %+v", st.Candidates)
	}
}

// TestStaleRelayIsNotTakenForAlive lets a relay die while a direct way is in
// use, and then the direct way and the better relay's session with it: the
// relay that worked last is the one to wait for, not the one that is slow and
// was not heard for long.
func TestStaleRelayIsNotTakenForAlive(t *testing.T) {
	w := newWorld(t, 3)
	w.do(RelaysChanged{[]RelayWay{relay(1, 60*ms), relay(2, 400*ms)}})
	w.do(remote(NAT{Mapping: MappingNone}, Candidate{Host, far4.To}))
	alive := true
	w.rtt = func(p SendProbe) time.Duration {
		switch {
		case p.Way == far4:
			return 20 * ms
		case p.Way == over(1):
			return 60 * ms
		case p.Way == over(2) && alive:
			return 400 * ms
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
	w.wantUsed(far4)
	if p := w.m.findPair(over(2)); p.answered.IsZero() {
		w.answerOnce(over(2))
	}
	alive = false
	w.run(25 * time.Second)
	w.silence(far4, over(1))
	w.run(time.Second)
	w.wantUsed(over(1))
}

// answerOnce lets a relay answer a probe, as it does when it is first probed.
func (w *world) answerOnce(way Way) {
	p := w.m.findPair(way)
	w.m.launch(flight{way: way, pair: p, purpose: forLife}, 0)
	fl := w.m.flights.queue[len(w.m.flights.queue)-1]
	w.now = w.now.Add(400 * ms)
	w.do(AnswerIn{Way: way, Tx: fl.tx})
}

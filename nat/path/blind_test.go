package path

import (
	"testing"
	"time"
)

var stream = Way{Kind: Stream, Stream: 1}

// keyless is a hub that has not said hello: two addresses and a stream.
func keyless(t *testing.T) *world {
	w := newWorld(t, 1)
	w.do(RemoteChanged{Remote: Remote{Hub: true, Candidates: []Candidate{
		{Configured, addr("198.51.100.1:4500")}, {Configured, addr("[2001:db8::1]:4500")},
	}}})
	w.do(RelaysChanged{[]RelayWay{{Way: stream}}})
	return w
}

func TestBlindRotation(t *testing.T) {
	w := keyless(t)
	w.do(Wanted{})
	w.wantUsed(far4)
	w.wantWhy(ReasonUnprobed)
	for _, step := range []struct {
		now  time.Duration
		want Way
	}{
		{999 * ms, far4},
		{1000 * ms, far6},
		{2000 * ms, stream},
		{3000 * ms, far4},
		{4900 * ms, far4},
		{5000 * ms, far6},
		{7000 * ms, stream},
		{9000 * ms, far4},
		{12900 * ms, far4},
		{13000 * ms, far6},
	} {
		w.runTo(epoch.Add(step.now))
		w.wantUsed(step.want)
	}
	if len(w.sends) != 0 {
		t.Errorf("probes without key: %v", w.sends)
	}
}

func TestBlindStaysWhereItIsHeard(t *testing.T) {
	w := keyless(t)
	w.do(Wanted{})
	w.run(1500 * ms)
	w.wantUsed(far6)
	n := uint64(0)
	last := time.Time{}
	w.traffic = func() Traffic {
		n++
		if last.IsZero() {
			return Traffic{Sent: n, Received: n, Heard: w.now}
		}
		return Traffic{Sent: n, Received: 100, Heard: last}
	}
	w.run(10 * time.Second)
	w.wantUsed(far6)
	last = w.now // silent from here
	w.run(1400 * ms)
	if w.used == far6 {
		t.Fatalf("still %v", w.used)
	}
}

func TestBlindUntilTheKeyIsKnown(t *testing.T) {
	w := keyless(t)
	w.do(Wanted{})
	w.run(500 * ms)
	ev := RemoteChanged{Remote: w.m.remote}
	ev.Remote.CanProbe = true
	w.rtt = answered(20*ms, far4)
	w.do(ev)
	w.run(5 * time.Second)
	w.wantUsed(far4)
	w.wantWhy(ReasonBest)
	if n := len(w.m.Status().Transitions); n != 1 {
		t.Errorf("%d transitions", n)
	}
}

func TestBlindHubWithUDPBlocked(t *testing.T) {
	w := keyless(t)
	w.do(LocalChanged{Local{NAT: NAT{Blocked: true}}})
	w.do(Wanted{})
	w.wantUsed(stream)
	w.wantWhy(ReasonLocalBlocked)
}

func TestEdgeWithoutKeyUsesRelayFirst(t *testing.T) {
	w := newWorld(t, 1)
	w.do(RemoteChanged{Remote: Remote{Candidates: []Candidate{{Configured, far4.To}}}})
	w.do(Wanted{})
	w.wantUsed(far4) // a mesh without hub, for all we know
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms)}})
	w.wantUsed(over(1))
	w.wantWhy(ReasonNoProbeKey)
}

func TestNoHandshakeIntoTheNATBeforeTheOpeners(t *testing.T) {
	w := newWorld(t, 1)
	w.do(remote(natted, srflx("198.51.100.1:4500")))
	w.do(Wanted{})
	w.run(4900 * ms)
	w.wantUsed(Way{})
	w.run(200 * ms)
	w.wantUsed(far4)
}

// TestBlindFollowsANewAddress: a hub whose address is another one in the objects is
// tried there at once, however long the old one has been silent.
func TestBlindFollowsANewAddress(t *testing.T) {
	w := newWorld(t, 1)
	tell := func(way Way) {
		w.do(RemoteChanged{Remote: Remote{Hub: true, Candidates: []Candidate{{Configured, way.To}}}})
	}
	tell(far4)
	w.do(Wanted{})
	w.run(25 * time.Second)
	w.wantUsed(far4)
	moved := direct("198.51.100.1:4510")
	tell(moved)
	w.wantUsed(moved)
}

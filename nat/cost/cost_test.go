package cost

import (
	"math/rand/v2"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestEstimator(t *testing.T) {
	now := time.Unix(1, 0)
	var e Estimator
	if e.Cost() != Unknown || e.Loss() != 0 || e.RTT() != 0 {
		t.Errorf("zero value: %v %v %v", e.Cost(), e.Loss(), e.RTT())
	}
	// RFC 6298: SRTT 100; 7/8*100 + 1/8*180 = 110; VAR 50; 3/4*50 + 1/4*80 = 57.5.
	e.Sent(now)
	e.Answered(now, 100*ms)
	e.Answered(now, 180*ms)
	if e.RTT() != 110*ms || e.Deviation() != 57500*time.Microsecond {
		t.Errorf("RTT %v, deviation %v", e.RTT(), e.Deviation())
	}
	for _, step := range []struct {
		lost, answered int
		loss           float64
		penalty        time.Duration
	}{
		{1, 0, 1.0 / 3, 0}, // one is free
		{1, 0, 2.0 / 4, time.Second / 32},
		{0, 28, 2.0 / 32, time.Second / 32},
		{0, 30, 0, 0}, // the window moved on
		{32, 0, 1, time.Second * 31 / 32},
	} {
		for range step.lost {
			e.Lost(now)
		}
		rtt := e.RTT()
		for range step.answered {
			e.Answered(now, rtt)
		}
		if e.Loss() != step.loss || e.Cost() != e.RTT()+step.penalty {
			t.Errorf("%+v: loss %v, penalty %v", step, e.Loss(), e.Cost()-e.RTT())
		}
	}
	e.Answered(now, -time.Second)
	e.Answered(now, 1<<62)
	if e.RTT() < 0 || e.Cost() > Unknown {
		t.Errorf("after nonsense: %v, %v", e.RTT(), e.Cost())
	}
}

// TestEstimatorSteps feeds links whose round trip time changes for good, and
// links that only jitter.
func TestEstimatorSteps(t *testing.T) {
	now := time.Unix(1, 0)
	random := rand.New(rand.NewPCG(1, 2))
	jitter := func(d time.Duration) time.Duration {
		return d + time.Duration((random.Float64()-0.5)*0.4*float64(d))
	}
	for _, tt := range []struct {
		name           string
		before, after  time.Duration
		samples        int // after the change
		atLeast, below time.Duration
	}{
		{"much slower", 10 * ms, 300 * ms, 3, 250 * ms, 350 * ms},
		{"much faster", 300 * ms, 5 * ms, 3, 3 * ms, 7 * ms},
		{"two samples prove nothing", 10 * ms, 300 * ms, 2, 0, 100 * ms},
		{"the same", 50 * ms, 50 * ms, 100, 40 * ms, 60 * ms},
	} {
		var e Estimator
		for range 50 {
			e.Answered(now, jitter(tt.before))
		}
		for range tt.samples {
			e.Answered(now, jitter(tt.after))
		}
		if e.RTT() < tt.atLeast || e.RTT() > tt.below {
			t.Errorf("%s: RTT %v, want %v to %v", tt.name, e.RTT(), tt.atLeast, tt.below)
		}
	}
	// Lone outliers between good samples are no change.
	var e Estimator
	for i := range 400 {
		rtt := jitter(20 * ms)
		if i%3 == 2 {
			rtt = 200 * ms
		}
		e.Answered(now, rtt)
	}
	if e.RTT() > 120*ms {
		t.Errorf("one outlier in three: RTT %v", e.RTT())
	}
}

package election

import (
	"slices"
	"testing"
	"time"
)

// step is one thing that happens at a time.
type step struct {
	now  float64 // seconds
	do   func(t *Tracker, now time.Time)
	want map[string]State // checked after do
	told []string         // what Sweep then returns
}

func at(s float64) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(s * float64(time.Second)))
}

func contact(t *Tracker, now time.Time) { t.Contact(now) }

// renew is a renewal: any time of the node's clock that it did not say before.
func renew(node string, seconds int, nodeClock float64) func(*Tracker, time.Time) {
	return func(t *Tracker, now time.Time) {
		t.Observe(now, node, Lease{Renewed: at(nodeClock), Duration: time.Duration(seconds) * time.Second})
	}
}

func release(node, reason string) func(*Tracker, time.Time) {
	return func(t *Tracker, now time.Time) {
		t.Observe(now, node, Lease{Released: true, Reason: reason, Renewed: now, Duration: 6 * time.Second})
	}
}

func seat(node string, active bool) func(*Tracker, time.Time) {
	return func(t *Tracker, now time.Time) { t.Seat(now, node, active) }
}

func TestTracker(t *testing.T) {
	is := func(s State) map[string]State { return map[string]State{"n": s} }
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"a node without Lease has no standing", []step{{now: 0, do: contact, want: is(NoLease)}}},
		{"a Lease is fresh for its duration after we saw it change, and lapses at a sweep", []step{
			{0, contact, nil, nil},
			{1, renew("n", 6, 1), is(Fresh), nil},
			{3, contact, is(Fresh), nil},
			{5, contact, is(Fresh), nil},
			{6.9, contact, is(Fresh), nil},
			{7, contact, is(Lapsed), []string{"n"}},
			{8, contact, is(Lapsed), nil},
			{9, renew("n", 6, 9), is(Fresh), nil}, // Observe itself told of it
		}},
		{"the node's clock does not count, only that it moves", []step{
			{0, renew("n", 6, -86400), is(Fresh), nil},
			{2, renew("n", 6, -86398), is(Fresh), nil},
			{4, renew("n", 6, 86400), is(Fresh), nil},
			{6, renew("n", 6, 0), is(Fresh), nil},
			{8, contact, is(Fresh), nil},
			{10, contact, is(Fresh), nil},
			{12, contact, is(Lapsed), []string{"n"}},
		}},
		{"the same Lease seen again is no renewal", []step{
			{0, renew("n", 6, 0), is(Fresh), nil},
			{2, contact, nil, nil},
			{4, contact, nil, nil},
			{5.5, renew("n", 6, 0), is(Fresh), nil},
			{6, contact, is(Lapsed), []string{"n"}},
		}},
		{"what is old when we begin to watch gets its whole duration", []step{
			{1000, renew("n", 6, 0), is(Fresh), nil},
			{1002, contact, nil, nil},
			{1004, contact, nil, nil},
			{1005.9, contact, is(Fresh), nil},
			{1006, contact, is(Lapsed), []string{"n"}},
		}},
		{"while the API server is away nothing lapses, and afterwards the duration begins anew", []step{
			{0, renew("n", 6, 0), is(Fresh), nil},
			{2, contact, is(Fresh), nil},
			{600, func(*Tracker, time.Time) {}, is(Fresh), nil},
			{602, contact, is(Fresh), nil},
			{604, contact, is(Fresh), nil},
			{606, contact, is(Fresh), nil},
			{607.9, contact, is(Fresh), nil},
			{608, contact, is(Lapsed), []string{"n"}},
		}},
		{"a gap that is just not one changes nothing", []step{
			{0, renew("n", 6, 0), is(Fresh), nil},
			{2.5, contact, nil, nil},
			{5, contact, is(Fresh), nil},
			{6, contact, is(Lapsed), []string{"n"}},
		}},
		{"renewals of another node are signs of the API server", []step{
			{0, renew("n", 6, 0), is(Fresh), nil},
			{2, renew("o", 6, 2), nil, nil},
			{4, renew("o", 6, 4), nil, nil},
			{6, renew("o", 6, 6), is(Lapsed), []string{"n"}},
		}},
		{"released is told at once, with the reason, and held again", []step{
			{0, renew("n", 6, 0), is(Fresh), nil},
			{1, release("n", "device down"), is(Released), nil},
			{2, release("n", "device down"), is(Released), nil},
			{3, renew("n", 6, 3), is(Fresh), nil},
		}},
		{"a Lease that goes leaves no standing", []step{
			{0, renew("n", 6, 0), is(Fresh), nil},
			{1, func(t *Tracker, _ time.Time) { t.Forget("n") }, is(NoLease), nil},
		}},
		{"who became active has a grace, not the rest of a long Lease", []step{
			{0, renew("n", 30, 0), is(Fresh), nil},
			{2, seat("n", true), nil, nil},
			{2, contact, nil, nil},
			{4, contact, nil, nil},
			{6, contact, nil, nil},
			{8, contact, nil, nil},
			{10, contact, nil, nil},
			{12, contact, nil, nil},
			{13.9, contact, is(Fresh), nil},
			{14, contact, is(Lapsed), []string{"n"}},
			{15, seat("n", false), is(Fresh), []string{"n"}}, // as a standby it has its 30 s
		}},
		{"an active node that renews as a standby is not dead", []step{
			{0, seat("n", true), nil, nil},
			{0, renew("n", 30, 0), is(Fresh), nil},
			{2, contact, nil, nil},
			{4, contact, nil, nil},
			{6, contact, nil, nil},
			{8, contact, nil, nil},
			{10, renew("n", 30, 10), is(Fresh), nil},
			{12, contact, nil, nil},
			{14, contact, nil, nil},
			{16, contact, nil, nil},
			{18, contact, nil, nil},
			{20, renew("n", 30, 20), is(Fresh), nil},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tr Tracker
			for _, s := range tt.steps {
				s.do(&tr, at(s.now))
				for node, want := range s.want {
					if got := tr.Standing(node).State; got != want {
						t.Errorf("at %v: standing of %s is %v, want %v", s.now, node, got, want)
					}
				}
				if got := tr.Sweep(); !slices.Equal(got, s.told) {
					t.Errorf("at %v: sweep tells of %v, want %v", s.now, got, s.told)
				}
			}
		})
	}
}

func TestOutlived(t *testing.T) {
	for _, tt := range []struct {
		name        string
		dead, other float64 // when they were seen last
		duration    int     // of the dead one's Lease
		want        bool
	}{
		{"both stopped at once", 10, 9, 6, false},
		{"the standby was the last, before the other was due", 10, 12, 6, false},
		{"late, but it may be", 10, 12.5, 6, false},
		{"the other would have renewed", 10, 12.6, 6, true},
		{"a long Lease is renewed seldom", 10, 20, 30, false},
		{"and later still", 10, 20.6, 30, true},
	} {
		var tr Tracker
		renew("dead", tt.duration, tt.dead)(&tr, at(tt.dead))
		renew("other", 30, tt.other)(&tr, at(tt.other))
		if got := tr.Outlived("dead", "other"); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		if tr.Outlived("dead", "nobody") || tr.Outlived("nobody", "other") {
			t.Error("who has no Lease showed something")
		}
	}
}

func TestLapsedFor(t *testing.T) {
	var tr Tracker
	renew("n", 6, 0)(&tr, at(0))
	for now, want := range []time.Duration{0, 0, 0, 0, 0, 0, 0, time.Second, 2 * time.Second} {
		contact(&tr, at(float64(now)))
		if got := tr.LapsedFor("n"); got != want {
			t.Errorf("at %d: %v, want %v", now, got, want)
		}
	}
}

func TestTrackerReason(t *testing.T) {
	var tr Tracker
	release("n", "device down")(&tr, at(0))
	if got, want := tr.Standing("n"), (Standing{Released, "device down"}); got != want {
		t.Errorf("standing is %v, want %v", got, want)
	}
}

func TestObserveTellsOnlyWhatMatters(t *testing.T) {
	lease := func(s int, clock float64) Lease {
		return Lease{Renewed: at(clock), Duration: time.Duration(s) * time.Second}
	}
	var tr Tracker
	for _, tt := range []struct {
		now   float64
		lease Lease
		want  bool
		why   string
	}{
		{0, lease(30, 0), true, "the first Lease: its node is judged by it from now on"},
		{2, lease(30, 2), false, "a renewal"},
		{4, lease(6, 4), true, "the agent knows that it is active"},
		{6, lease(6, 6), false, "a renewal"},
		{8, Lease{Released: true, Reason: "a"}, true, "released"},
		{9, Lease{Released: true, Reason: "b"}, true, "for another reason"},
		{10, lease(6, 10), true, "held again"},
	} {
		if got := tr.Observe(at(tt.now), "n", tt.lease); got != tt.want {
			t.Errorf("at %v: told %v, want %v: %s", tt.now, got, tt.want, tt.why)
		}
	}
	if !tr.Forget("n") || tr.Forget("n") {
		t.Error("forgetting a Lease is told once")
	}
}

func TestSettled(t *testing.T) {
	sec := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	for _, tt := range []struct {
		name    string
		lease   int // seconds; 0: none
		active  bool
		now     float64
		left    time.Duration
		settled bool
	}{
		{name: "not active", now: 100},
		{name: "no Lease, new", active: true, now: 1, left: sec(2)},
		{name: "no Lease, three seconds", active: true, now: 3, settled: true},
		{name: "agent knows, new", lease: 6, active: true, now: 2, left: sec(1)},
		{name: "agent knows, three seconds", lease: 6, active: true, now: 3, settled: true},
		{name: "agent does not know", lease: 30, active: true, now: 3, left: sec(12)},
		{name: "agent never knew", lease: 30, active: true, now: 15, settled: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tr Tracker
			if tt.lease > 0 {
				renew("n", tt.lease, 0)(&tr, at(0))
			}
			if tt.active {
				tr.Seat(at(0), "n", true)
				tr.Seat(at(0.5), "n", true) // told again: nothing begins anew
			}
			left, settled := tr.Settled(at(tt.now), "n")
			if left != tt.left || settled != tt.settled {
				t.Errorf("settled is %v, %v; want %v, %v", left, settled, tt.left, tt.settled)
			}
		})
	}
}

func TestTrackerForgetsWhatIsGone(t *testing.T) {
	var tr Tracker
	renew("n", 6, 0)(&tr, at(0))
	tr.Seat(at(0), "n", true)
	tr.Forget("n")
	tr.Seat(at(1), "n", false)
	if len(tr.nodes) != 0 {
		t.Errorf("%d nodes are still tracked", len(tr.nodes))
	}
	if tr.Unsure(at(2), time.Second) {
		t.Error("the API server is asked for a sign although there is no Lease")
	}
}

func TestUnsure(t *testing.T) {
	var tr Tracker
	renew("n", 6, 0)(&tr, at(0))
	for _, tt := range []struct {
		now  float64
		do   func(*Tracker, time.Time)
		want bool
	}{
		{0.9, nil, false},
		{1, nil, true},
		{1, contact, false},
		{3, contact, false},
		{5.5, contact, false},
		{5.9, nil, false},
		{6, nil, true}, // it would have lapsed: only a sign of the API server is missing
		{6, contact, false},
		{6.5, nil, false},
		{6.6, release("n", "x"), false},
		{7, nil, false},
		{7.6, nil, true},
	} {
		if tt.do != nil {
			tt.do(&tr, at(tt.now))
		}
		if got := tr.Unsure(at(tt.now), time.Second); got != tt.want {
			t.Errorf("at %v: %v, want %v", tt.now, got, tt.want)
		}
	}
}

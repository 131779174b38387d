package natlab_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"corax/nat/natlab"
	"corax/nat/path"
)

// seeds is how many scenarios are run: more for a soak.
func seeds(t *testing.T, usual int) int {
	if v := os.Getenv("CORAX_NATLAB_SEEDS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("CORAX_NATLAB_SEEDS: %v", err)
		}
		return n
	}
	return usual
}

// scenario is a random world and what happens in it.
type scenario struct {
	*pair
	seed   uint64
	same   bool // both edges at one site
	lossy  bool
	killed int // hubs
	told   []string
	marks  []time.Time // when something happened
}

const (
	dataEvery  = 50 * time.Millisecond
	settleTime = 45 * time.Second
	// directTime is long, since a Linux router that took a port for itself
	// gives it up only after half a minute of silence.
	directTime = 3 * time.Minute
	// Chance makes one interruption in many longer than it should be, since
	// probes are lost, too; but never so long.
	mayInterrupt = 500
	unbearable   = 10 * time.Second
)

// newScenario draws a world: accesses, latencies, loss, hubs and who uses them.
func newScenario(seed uint64, trace int) *scenario {
	wan := natlab.Link{Latency: 10 * time.Millisecond}
	s := newSim(seed, wan, trace)
	r := s.lab.Rand()
	sc := &scenario{pair: &pair{sim: s}, seed: seed, same: r.IntN(12) == 0, lossy: r.IntN(2) == 0}
	s.knowFiltering = r.IntN(2) == 0
	link := func(most int) natlab.Link {
		l := natlab.Link{Latency: time.Duration(1+r.IntN(most)) * time.Millisecond}
		l.Jitter = l.Latency / 5
		if sc.lossy {
			l.Loss = r.Float64() * 0.0125 // four of them on a way over a relay
			l.Reorder = 0.01
		}
		return l
	}
	for range 2 + r.IntN(2) {
		s.addHub(link(10))
	}
	accessA, accessB := link(30), link(30)
	siteA := s.addSite(siteKind(r.IntN(int(siteKinds))), accessA)
	siteB := siteA
	if !sc.same {
		siteB = s.addSite(siteKind(r.IntN(int(siteKinds))), accessB)
	} else if siteA.kind == public {
		siteA.kind, siteB.kind = public, public
		siteB = s.addSite(public, accessB)
		sc.same = false
	}
	hubsA, hubsB := s.hubs[:2], s.hubs[len(s.hubs)-2:]
	ea := s.addEdge(siteA, accessA, hubsA...)
	s.lab.Run(time.Duration(r.IntN(500)) * time.Millisecond)
	eb := s.addEdge(siteB, accessB, hubsB...)
	sc.a, sc.b = connect(ea, eb)
	s.lab.Run(8 * time.Second)
	return sc
}

// tell notes what happens, for the trace and for the check of interruptions.
func (sc *scenario) tell(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	sc.lab.Tracef("scenario: %s", line)
	sc.told = append(sc.told, fmt.Sprintf("%.3f %s", sc.lab.Now().Sub(natlab.New(0).Now()).Seconds(), line))
	sc.marks = append(sc.marks, sc.lab.Now())
}

// happen lets something happen to the world.
func (sc *scenario) happen() {
	r := sc.lab.Rand()
	p := []*peer{sc.a, sc.b}[r.IntN(2)]
	st := p.e.site
	switch r.IntN(5) {
	case 0:
		if st.kind == public {
			return
		}
		i := r.IntN(len(st.routers))
		sc.tell("router %d of site %d reboots", i, st.n)
		st.routers[i].Reboot()
	case 1:
		if st.kind == public {
			sc.tell("edge%d gets another address", p.e.id)
			p.e.host.SetAddrs(p.e.ifc, st.outer(10+len(sc.told))...)
			p.e.networkChanged("address")
			return
		}
		sc.tell("site %d gets another WAN address", st.n)
		st.routers[len(st.routers)-1].SetOuter(st.outer(10 + len(sc.told))...)
	case 2, 3:
		// Any hub but the last that both could use.
		if sc.killed == len(sc.hubs)-1 || sc.killed > 0 && len(sc.hubs) > 2 {
			return
		}
		h := sc.hubs[r.IntN(len(sc.hubs))]
		sc.killed++
		sc.tell("%s dies", h.host.Name())
		h.kill()
	case 4:
		if st.kind == public || st.kind == blocked {
			return
		}
		sc.tell("UDP is blocked at site %d", st.n)
		st.kind = blocked
		for _, rt := range st.routers {
			rt.SetBlocked(true)
		}
	}
}

// bearable is what an interruption may last: a second. It is a little more when
// UDP is blocked, since then the sessions with the hubs die with the direct way,
// and more when loss delays what comes over TLS, or when something else had
// happened so shortly before that not even the standby had been missed yet.
func (sc *scenario) bearable(at time.Time) time.Duration {
	recent := 0
	for _, m := range sc.marks {
		if d := at.Sub(m); d > -maxUnderWay && d < 20*time.Second {
			recent++
		}
	}
	tls := sc.a.e.site.kind == blocked || sc.b.e.site.kind == blocked
	switch {
	case recent > 1:
		return 3 * time.Second
	case tls && sc.lossy:
		return 1500 * time.Millisecond
	case tls:
		return 1100 * time.Millisecond
	}
	return time.Second
}

// before returns what happened last before a moment.
func (sc *scenario) before(at time.Time) string {
	last := "nothing"
	for i, m := range sc.marks {
		if !m.After(at.Add(dataEvery)) {
			last = sc.told[i]
		}
	}
	return last
}

// possible says whether the pair can be direct in the world as it is now.
func (sc *scenario) possible() bool {
	if sc.same {
		return sc.a.e.site.kind != blocked // a machine that is blocked probes nobody
	}
	return directPossible(sc.a.e.site.kind, sc.b.e.site.kind)
}

// check returns what is wrong at the end, and interruptions that were longer
// than they should be.
func (sc *scenario) check() (wrong, late []string) {
	if first, ok := sc.firstByte(); !ok || first > time.Second {
		wrong = append(wrong, fmt.Sprintf("first byte after %v (%v)", first, ok))
	}
	now := sc.lab.Now()
	for _, d := range [][2]*peer{{sc.a, sc.b}, {sc.b, sc.a}} {
		from, to := d[0], d[1]
		gap, at := to.traffic.gap(&from.traffic, from.traffic.started.Add(time.Second), now.Add(-time.Second), sc.marks)
		line := fmt.Sprintf("edge%d to edge%d: %v lost from %.3f, after %s", from.e.id, to.e.id, gap, at.Sub(natlab.New(0).Now()).Seconds(), sc.before(at))
		switch {
		case gap > unbearable:
			wrong = append(wrong, line)
		case gap > sc.bearable(at):
			late = append(late, line)
		}
		if end, _ := to.traffic.gap(&from.traffic, now.Add(-3*time.Second), now.Add(-time.Second), nil); end > time.Second {
			wrong = append(wrong, fmt.Sprintf("edge%d does not reach edge%d at the end", from.e.id, to.e.id))
		}
	}
	for _, p := range []*peer{sc.a, sc.b} {
		if msg := sc.judge(p); msg != "" {
			wrong = append(wrong, fmt.Sprintf("edge%d: %s", p.e.id, msg))
		}
	}
	return wrong, late
}

// judge compares what a machine says about itself with the truth.
func (sc *scenario) judge(p *peer) string {
	st := p.m.Status()
	if st.Way != p.way {
		return fmt.Sprintf("status shows %v, in use is %v", st.Way, p.way)
	}
	other := sc.a
	if p == sc.a {
		other = sc.b
	}
	if st.Way.Kind == path.Direct {
		if !sc.possible() && !sc.same && !(p.e.site.kind.hard() && other.e.site.kind.hard()) {
			return fmt.Sprintf("direct where that cannot be: %v", st.Way)
		}
		if st.Why != path.ReasonBest {
			return "direct, and says " + st.Why.Code()
		}
		return ""
	}
	if sc.possible() {
		if st.Why == path.ReasonRelayCheaper || spoiled(p.e) || spoiled(other.e) {
			return ""
		}
		return "could be direct, and says " + st.Why.Code()
	}
	fits := map[path.Reason]bool{}
	local, remote := p.e.site.kind, other.e.site.kind
	if local == blocked {
		fits[path.ReasonLocalBlocked] = true
	}
	if remote == blocked {
		fits[path.ReasonRemoteBlocked] = true
	}
	if local.hard() && remote.hard() {
		// A sequential NAT may look random when some STUN answers are lost.
		fits[path.ReasonBothRandom] = true
		fits[path.ReasonNoAnswer] = local == sequential && remote == sequential
		fits[path.ReasonProbing], fits[path.ReasonPredicting] = true, true
	}
	if !fits[st.Why] {
		return fmt.Sprintf("%v to %v, relayed, and says %s", local, remote, st.Why.Code())
	}
	return ""
}

// spoiled says whether a Linux router looks symmetric: after it forgot its
// flows, what still came from a hub took the port that our flow to the hub had.
func spoiled(e *edge) bool {
	return (e.site.kind == linuxOpen || e.site.kind == double) && e.local.NAT.Mapping == path.MappingAddressAndPortDependent
}

// runScenario returns what was wrong with a seed, and its story.
func runScenario(seed uint64, trace int) (wrong, late []string, story string) {
	sc := newScenario(seed, trace)
	r := sc.lab.Rand()
	sc.start(dataEvery, time.Duration(r.IntN(1000))*time.Millisecond)
	sc.lab.Run(time.Duration(2+r.IntN(20)) * time.Second)
	for range 1 + r.IntN(2) {
		sc.happen()
		sc.lab.Run(time.Duration(5+r.IntN(30)) * time.Second)
	}
	if sc.possible() {
		sc.lab.RunUntil(directTime, sc.direct)
		sc.lab.Run(5 * time.Second)
	} else {
		sc.lab.Run(settleTime)
	}
	wrong, late = sc.check()
	if len(wrong)+len(late) > 0 {
		story = fmt.Sprintf("%v to %v, same site %v, lossy %v\n%s\n%s", sc.a.e.site.kind, sc.b.e.site.kind, sc.same, sc.lossy,
			strings.Join(sc.told, "\n"), sc.explain(seed))
	}
	return wrong, late, story
}

// TestRandom runs seeded scenarios; the seed of one that fails is run alone
// with CORAX_NATLAB_SEED, which prints its trace.
func TestRandom(t *testing.T) {
	if v := os.Getenv("CORAX_NATLAB_SEED"); v != "" {
		seed, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if wrong, late, story := runScenario(seed, 200000); len(wrong)+len(late) > 0 {
			t.Errorf("%s\n%s", strings.Join(append(wrong, late...), "\n"), story)
		}
		return
	}
	n := seeds(t, usualSeeds)
	if testing.Short() {
		n /= 10
	}
	failed, interrupted := 0, 0
	for seed := range uint64(n) {
		wrong, late, story := runScenario(seed, 0)
		if len(late) > 0 {
			interrupted++
			t.Logf("seed %d: %s", seed, strings.Join(late, "; "))
		}
		if len(wrong) == 0 {
			continue
		}
		if failed++; failed > 3 {
			story = ""
		}
		t.Errorf("seed %d: %s\n%s", seed, strings.Join(wrong, "; "), story)
	}
	t.Logf("%d scenarios: %d failed, %d were interrupted for too long", n, failed, interrupted)
	if interrupted > n/mayInterrupt {
		t.Errorf("%d of %d scenarios were interrupted for too long", interrupted, n)
	}
}

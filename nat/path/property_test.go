package path

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// invariants watches a world.
type invariants struct {
	w       *world
	recent  []time.Time // probes of the last second
	relays  []RelayWay
	keyless bool
	hub     bool
	steps   int
}

func (v *invariants) check(t *testing.T, ev Event, acts []Action) {
	for _, a := range acts {
		switch a := a.(type) {
		case SendProbe:
			v.probe(t, a)
		case Use:
			v.use(t, a, ev)
		case SetMTU:
			if a.MTU < 1184 || a.MTU > 1408 || a.MTU%16 != 0 {
				t.Fatalf("MTU %d", a.MTU)
			}
		}
	}
	if v.steps++; v.steps%32 != 0 {
		return
	}
	st := v.w.m.Status()
	if !st.Active {
		if d := v.w.m.Deadline(); !d.IsZero() {
			t.Fatalf("idle with deadline %v after %T", d, ev)
		}
	}
	if len(st.Transitions) > maxTransitions || len(st.Candidates) > maxCandidates+maxReflexive+predictPorts+10 {
		t.Fatalf("%d transitions, %d candidates", len(st.Transitions), len(st.Candidates))
	}
	if st.MTU6 < 1280 || st.Why.Code() == "" || st.Why.String() == "" {
		t.Fatalf("status %+v", st)
	}
}

func (v *invariants) probe(t *testing.T, a SendProbe) {
	for len(v.recent) > 0 && v.w.now.Sub(v.recent[0]) > time.Second {
		v.recent = v.recent[1:]
	}
	v.recent = append(v.recent, v.w.now)
	if len(v.recent) > probeRate+probeBurst+1 {
		t.Fatalf("%d probes within a second", len(v.recent))
	}
	if v.keyless {
		t.Fatalf("probe without key on %v", a.Way)
	}
	if a.Way.Kind != Direct {
		return
	}
	if forbiddenInTest(a.Way.To.Addr(), v.hub) {
		t.Fatalf("probe to %v", a.Way.To)
	}
}

// forbiddenInTest is an oracle for the addresses that the test uses.
func forbiddenInTest(a netip.Addr, isHub bool) bool {
	switch a.String() {
	case "127.0.0.1", "10.42.0.5", "192.168.1.7", "224.0.0.5", "0.0.0.0", "255.255.255.255", "192.168.1.255":
		return true
	case "10.9.9.9", "100.64.1.1":
		return isHub
	}
	return false
}

func (v *invariants) use(t *testing.T, a Use, ev Event) {
	if a.Way.Kind != Direct || v.keyless {
		return
	}
	st := v.w.m.Status()
	for _, c := range st.Candidates {
		if c.Way == a.Way && c.Proven {
			return
		}
	}
	for _, c := range st.Candidates {
		if c.Proven && c.Way.Kind == Direct {
			t.Fatalf("%T: use of unproven %v, though %v is proven", ev, a.Way, c.Way)
		}
	}
	for _, r := range v.relays {
		if r.Way.Kind == Relay {
			t.Fatalf("%T: use of unproven %v, though there is %v", ev, a.Way, r.Way)
		}
	}
}

var testAddrs = []string{
	"198.51.100.1", "198.51.100.2", "2001:db8::1", "10.9.9.9", "192.168.1.8", "100.64.1.1",
	"127.0.0.1", "10.42.0.5", "192.168.1.7", "224.0.0.5", "0.0.0.0", "255.255.255.255", "192.168.1.255",
}

func randomAddr(r *rand.Rand) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(testAddrs[r.IntN(len(testAddrs))]), uint16(4500+r.IntN(3)))
}

func randomNATs(r *rand.Rand) NAT {
	n := NAT{Mapping: uint8(r.IntN(6)), Filtering: uint8(r.IntN(5))}
	if r.IntN(3) == 0 {
		n.PortStep = r.IntN(7) - 3
	}
	n.Blocked = r.IntN(12) == 0
	n.Lifetime = time.Duration(r.IntN(4)*10) * time.Second
	return n
}

func randomCandidates(r *rand.Rand) (c []Candidate) {
	for range r.IntN(6) {
		c = append(c, Candidate{CandidateKind(r.IntN(7)), randomAddr(r)})
	}
	if r.IntN(20) == 0 {
		for i := range 150 {
			c = append(c, Candidate{Host, netip.AddrPortFrom(netip.MustParseAddr("198.51.100.3"), uint16(i))})
		}
	}
	return c
}

func (v *invariants) randomWay(r *rand.Rand) Way {
	switch r.IntN(4) {
	case 0:
		return over(byte(1 + r.IntN(3)))
	case 1:
		return Way{Kind: Stream, Stream: uint64(r.IntN(2))}
	}
	w := Way{Kind: Direct, To: randomAddr(r)}
	if r.IntN(5) == 0 {
		w.Socket = uint32(r.IntN(300))
	}
	return w
}

func (v *invariants) event(r *rand.Rand) Event {
	w := v.w
	switch r.IntN(16) {
	case 0:
		v.hub = r.IntN(4) == 0
		return LocalChanged{Local{
			NAT: randomNATs(r), Candidates: randomCandidates(r), Hub: v.hub,
			Own:       []netip.Addr{netip.MustParseAddr("192.168.1.7")},
			Connected: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
			Forbidden: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")},
		}}
	case 1, 2:
		v.keyless = r.IntN(5) == 0
		return RemoteChanged{Remote{NAT: randomNATs(r), Candidates: randomCandidates(r), CanProbe: !v.keyless, Hub: r.IntN(5) == 0}, r.IntN(3) == 0}
	case 3:
		v.relays = nil
		for i := range r.IntN(3) {
			v.relays = append(v.relays, relay(byte(1+i), time.Duration(r.IntN(80))*ms))
		}
		if r.IntN(4) == 0 {
			v.relays = append(v.relays, RelayWay{Way: Way{Kind: Stream, Stream: uint64(r.IntN(2))}})
		}
		return RelaysChanged{v.relays}
	case 4:
		return NetworkChanged{"test"}
	case 5:
		return Lost{Way: v.randomWay(r), Why: "test"}
	case 6:
		return TooBig{Way: v.randomWay(r), Size: r.IntN(2000)}
	case 7:
		return SocketsOpened{[]uint32{1, 2, 3}}
	case 8:
		return SocketsRefused{"test"}
	case 9, 10:
		return ProbeIn{Way: v.randomWay(r), Size: r.IntN(1500)}
	case 11:
		return Traffic{Sent: uint64(r.IntN(1000)), Received: uint64(r.IntN(1000)), Heard: w.now.Add(-time.Duration(r.IntN(1000)) * ms)}
	case 12:
		return AnswerIn{Way: v.randomWay(r)}
	case 13:
		return Tick{}
	}
	return Wanted{}
}

func TestRandomEvents(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 11))
		w := newWorld(t, seed)
		v := &invariants{w: w, keyless: true}
		w.every = func(ev Event, acts []Action) { v.check(t, ev, acts) }
		loss := r.IntN(100)
		w.rtt = func(SendProbe) time.Duration {
			if r.IntN(100) < loss {
				return -1
			}
			return time.Duration(1+r.IntN(200)) * ms
		}
		if seed%2 == 0 {
			w.do(LocalChanged{Local{
				Own:       []netip.Addr{netip.MustParseAddr("192.168.1.7")},
				Connected: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
				Forbidden: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")},
			}})
		} else {
			w.do(v.localFirst(r))
		}
		for range 150 {
			w.do(v.event(r))
			switch r.IntN(12) {
			case 0:
				w.run(time.Duration(r.IntN(30)) * time.Second)
			case 1:
				w.run(2 * time.Minute)
			default:
				w.run(time.Duration(r.IntN(400)) * ms)
			}
			w.clearLog()
		}
	}
}

func (v *invariants) localFirst(r *rand.Rand) Event {
	for {
		if ev, ok := v.event(r).(LocalChanged); ok {
			v.relays, v.keyless = nil, true
			return ev
		}
	}
}

func BenchmarkStep(b *testing.B) {
	// 1,000 active peers on proven ways, each sampled every 100 ms.
	var ms1000 []*Machine
	now := epoch
	for i := range 1000 {
		m := New(Config{Rand: rand.New(rand.NewPCG(uint64(i), 0))})
		m.Step(now, RelaysChanged{[]RelayWay{relay(1, 20*ms)}})
		m.Step(now, remote(NAT{Mapping: MappingNone}, Candidate{Host, far4.To}))
		m.Step(now, Wanted{})
		ms1000 = append(ms1000, m)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i%len(ms1000) == 0 {
			now = now.Add(100 * time.Millisecond)
		}
		m := ms1000[i%len(ms1000)]
		n := uint64(i)
		for _, a := range m.Step(now, Traffic{Sent: n, Received: n, Heard: now}) {
			if p, ok := a.(SendProbe); ok {
				m.Step(now, AnswerIn{Way: p.Way, Tx: p.Tx})
				break
			}
		}
		i++
	}
}

func TestTrafficAllocatesNothing(t *testing.T) {
	w := busy(t, far4, over(1))
	n := w.m.live.sent
	now := w.now
	var ev Event
	if got := testing.AllocsPerRun(1000, func() {
		n++
		now = now.Add(ms)
		ev = Traffic{Sent: n, Received: n, Heard: now}
	}); got > 2 {
		t.Fatalf("the test itself allocates %v", got)
	}
	if got := testing.AllocsPerRun(1000, func() { w.m.Step(w.now, ev) }); got != 0 {
		t.Errorf("Step with Traffic allocates %v times", got)
	}
}

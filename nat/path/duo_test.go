package path

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// duo is two Machines, each behind a NAT, with a relay between them.
type duo struct {
	t     testing.TB
	now   time.Time
	rnd   *rand.Rand
	ends  [2]*end
	queue []later
	relay bool // the relay works
}

type later struct {
	at time.Time
	do func()
}

// end is one of them. Its NAT filters by address and port.
type end struct {
	m         *Machine
	pub       netip.Addr
	nat       NAT
	deaf      bool
	inputOpen bool // what comes unasked is noted, and makes later flows clash
	noise     int  // mappings that others take between a measurement and the next packet
	next      uint16
	maps      map[flow]uint16
	opened    map[uint16]map[netip.AddrPort]uint32 // port of the NAT: peers it sent to, and from which socket
	unasked   map[uint16]map[netip.AddrPort]bool
	used      Way
	sockets   int
	kept      []uint32
	sends     int
}

type flow struct {
	socket uint32
	to     netip.AddrPort // zero when the mapping is endpoint independent
}

func newDuo(t testing.TB, seed uint64, a, b NAT) *duo {
	d := &duo{t: t, now: epoch, rnd: rand.New(rand.NewPCG(seed, 3)), relay: true}
	for i, nat := range []NAT{a, b} {
		d.ends[i] = &end{
			m:      New(Config{Self: hub(byte(100 + i)), Peer: hub(byte(101 - i)), Rand: rand.New(rand.NewPCG(seed, uint64(i)))}),
			pub:    netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + i)}),
			nat:    nat,
			next:   uint16(20000 + d.rnd.IntN(20000)),
			maps:   map[flow]uint16{},
			opened: map[uint16]map[netip.AddrPort]uint32{}, unasked: map[uint16]map[netip.AddrPort]bool{},
		}
	}
	return d
}

func (d *duo) port(e *end, f flow) uint16 {
	dest := f.to
	if !e.nat.hard() {
		f.to = netip.AddrPort{}
	}
	if p, ok := e.maps[f]; ok {
		// Linux: a flow whose reply is taken by a note of its own gets another port.
		if _, open := e.opened[p][dest]; e.inputOpen && e.unasked[p][dest] && !open {
			return uint16(1024 + d.rnd.IntN(60000))
		}
		return p
	}
	p := uint16(1024 + d.rnd.IntN(searchSpace))
	switch {
	case !e.nat.hard() && f.socket == 0:
		p = 4500
	case e.nat.PortStep != 0:
		e.next += uint16(e.nat.PortStep)
		p = e.next
	}
	e.maps[f] = p
	return p
}

// measure is what STUN tells.
func (d *duo) measure(e *end) Candidate {
	if !e.nat.hard() {
		return Candidate{ServerReflexive, netip.AddrPortFrom(e.pub, 4500)}
	}
	stun := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), uint16(1000+d.rnd.IntN(50000)))
	c := Candidate{ServerReflexive, netip.AddrPortFrom(e.pub, d.port(e, flow{0, stun}))}
	e.next += uint16(e.noise * e.nat.PortStep)
	return c
}

func (d *duo) remote(e *end, call bool) RemoteChanged {
	return RemoteChanged{Remote: Remote{CanProbe: true, NAT: e.nat, Candidates: []Candidate{
		d.measure(e), {Host, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, e.pub.As4()[3], 2}), 4500)},
	}}, Call: call}
}

func (d *duo) after(t time.Duration, do func()) { d.queue = append(d.queue, later{d.now.Add(t), do}) }

// send carries a datagram through both NATs and hands it to in.
func (d *duo) send(i int, w Way, ttl int, in func(Way)) {
	from, to := d.ends[i], d.ends[1-i]
	p := d.port(from, flow{w.Socket, w.To})
	if from.opened[p] == nil {
		from.opened[p] = map[netip.AddrPort]uint32{}
	}
	from.opened[p][w.To] = w.Socket
	if to.deaf || w.To.Addr() != to.pub || ttl != 0 && ttl < 3 {
		return
	}
	src := netip.AddrPortFrom(from.pub, p)
	d.after(20*ms, func() {
		socket, ok := to.opened[w.To.Port()][src]
		if !ok {
			if to.inputOpen {
				if to.unasked[w.To.Port()] == nil {
					to.unasked[w.To.Port()] = map[netip.AddrPort]bool{}
				}
				to.unasked[w.To.Port()][src] = true
			}
			return
		}
		if ttl == 0 || ttl > 3 {
			in(Way{Kind: Direct, To: src, Socket: socket})
		}
	})
}

func (d *duo) step(i int, ev Event) {
	e := d.ends[i]
	for _, a := range slices.Clone(e.m.Step(d.now, ev)) {
		switch a := a.(type) {
		case Use:
			e.used = a.Way
		case Announce:
			r := d.remote(e, a.Call)
			d.after(40*ms, func() { d.step(1-i, r) })
		case OpenSockets:
			e.sockets = a.N
			var s []uint32
			for k := range a.N {
				s = append(s, uint32(k+1))
			}
			d.after(ms, func() { d.step(i, SocketsOpened{s}) })
		case CloseSockets:
			e.sockets, e.kept = 0, append(e.kept, a.Keep)
		case SendProbe:
			e.sends++
			switch {
			case a.Way.Kind == Relay && d.relay:
				d.after(80*ms, func() { d.step(i, AnswerIn{Way: a.Way, Tx: a.Tx}) })
			case a.Way.Kind == Direct:
				d.send(i, a.Way, a.TTL, func(came Way) {
					d.step(1-i, ProbeIn{Way: came, Tx: a.Tx})
					d.send(1-i, came, 0, func(back Way) { d.step(i, AnswerIn{Way: back, Tx: a.Tx}) })
				})
			}
		}
	}
}

// start makes both ends meet; the second learns of it through the first.
func (d *duo) start() {
	for i, e := range d.ends {
		d.step(i, LocalChanged{Local{NAT: e.nat, Candidates: []Candidate{{ServerReflexive, netip.AddrPortFrom(e.pub, 4500)}}}})
		d.step(i, RelaysChanged{[]RelayWay{relay(1, 80*ms)}})
	}
	d.step(0, Wanted{})
}

func (d *duo) run(t time.Duration) {
	end := d.now.Add(t)
	for {
		next, who := end.Add(1), -1
		for i, e := range d.ends {
			if at := e.m.Deadline(); !at.IsZero() && at.Before(next) {
				next, who = at, i
			}
		}
		which := -1
		for i, q := range d.queue {
			if q.at.Before(next) {
				next, which = q.at, i
			}
		}
		if next.After(end) {
			d.now = end
			return
		}
		d.now = next
		if which >= 0 {
			do := d.queue[which].do
			d.queue = slices.Delete(d.queue, which, which+1)
			do()
			continue
		}
		d.step(who, Tick{})
	}
}

// untilDirect runs until both are, and says how long it took.
func (d *duo) untilDirect(most time.Duration) (time.Duration, bool) {
	for d.now.Sub(epoch) < most {
		d.run(10 * ms)
		if d.ends[0].used.Kind == Direct && d.ends[1].used.Kind == Direct {
			return d.now.Sub(epoch), true
		}
	}
	return 0, false
}

var (
	randomNAT     = NAT{Mapping: MappingAddressAndPortDependent, Filtering: FilteringAddressAndPortDependent}
	sequentialNAT = NAT{Mapping: MappingAddressAndPortDependent, Filtering: FilteringAddressAndPortDependent, PortStep: 1}
)

func TestTwoEnds(t *testing.T) {
	open := NAT{Mapping: MappingEndpointIndependent}
	tests := []struct {
		name      string
		a, b      NAT
		inputOpen bool
		noise     int
		most      time.Duration
		min       int // of 50 seeds
		why       Reason
	}{
		{"port restricted both", natted, natted, false, 0, 2 * time.Second, 50, 0},
		{"Linux with INPUT open both", natted, natted, true, 0, 2 * time.Second, 50, 0},
		{"filtering unknown", open, open, true, 0, 2 * time.Second, 50, 0},
		{"random and port restricted", randomNAT, natted, false, 0, 40 * time.Second, 49, 0},
		{"port restricted and random", natted, randomNAT, false, 0, 40 * time.Second, 49, 0},
		{"random and Linux with INPUT open", randomNAT, natted, true, 0, 40 * time.Second, 48, 0},
		{"sequential and port restricted", sequentialNAT, natted, false, 2, 5 * time.Second, 50, 0},
		{"sequential both", sequentialNAT, sequentialNAT, false, 0, 15 * time.Second, 45, 0},
		{"sequential both, others draw ports too", sequentialNAT, sequentialNAT, false, 2, 15 * time.Second, 30, 0},
		{"random both", randomNAT, randomNAT, false, 0, 40 * time.Second, -1, ReasonBothRandom},
		{"random and sequential", randomNAT, sequentialNAT, false, 0, 40 * time.Second, -1, ReasonBothRandom},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hits, sum := 0, time.Duration(0)
			seeds := 50
			if tt.min < 0 {
				seeds = 3
			}
			for seed := range seeds {
				d := newDuo(t, uint64(seed), tt.a, tt.b)
				for _, e := range d.ends {
					e.inputOpen, e.noise = tt.inputOpen, tt.noise
				}
				d.start()
				at, ok := d.untilDirect(tt.most)
				if ok {
					hits, sum = hits+1, sum+at
					d.run(time.Second)
					for i, e := range d.ends {
						if e.sockets != 0 {
							t.Errorf("seed %d: end %d has its sockets still", seed, i)
						}
						if s := e.used.Socket; s != 0 && !slices.Contains(e.kept, s) {
							t.Errorf("seed %d: socket %d is in use, kept %v", seed, s, e.kept)
						}
					}
				} else if tt.why != 0 {
					for i, e := range d.ends {
						if got := e.m.Status().Why; got != tt.why {
							t.Errorf("seed %d: end %d: why %q", seed, i, got.Code())
						}
						if e.used.Kind != Relay {
							t.Errorf("seed %d: path %v", seed, e.used)
						}
					}
				}
			}
			t.Logf("direct %d of %d, after %v", hits, seeds, sum/time.Duration(max(hits, 1)))
			if hits < tt.min || tt.min < 0 && hits > 0 {
				t.Errorf("direct %d of %d", hits, seeds)
			}
		})
	}
}

func TestBirthdayOnlyOnceAndOnlyWithRelay(t *testing.T) {
	d := newDuo(t, 1, randomNAT, natted)
	d.ends[0].nat.Filtering = FilteringUnknown
	d.start()
	d.ends[0].deaf = true // the easy end's packets never arrive
	opened := 0
	for range 240 {
		d.step(0, Wanted{})
		d.step(1, Wanted{})
		d.run(250 * ms)
		if d.ends[0].sockets > 0 {
			opened++
		}
	}
	if d.ends[0].sockets != 0 || opened == 0 || opened > 4*32 {
		t.Errorf("sockets: %d, open for %d quarters of a second", d.ends[0].sockets, opened)
	}
	if why := d.ends[0].m.Status().Why; why != ReasonBirthdayFailed {
		t.Errorf("why %q", why.Code())
	}
	if d.ends[1].sends > 2*searchProbes {
		t.Errorf("%d probes", d.ends[1].sends)
	}
	before := d.ends[1].sends
	d.run(30 * time.Second)
	if n := d.ends[1].sends - before; n > 400 {
		t.Errorf("%d further probes: searched again without change", n)
	}

	alone := newDuo(t, 1, randomNAT, natted)
	alone.start()
	for i := range alone.ends {
		alone.step(i, RelaysChanged{nil})
	}
	alone.run(4 * time.Second)
	if alone.ends[0].sockets != 0 || alone.ends[1].sends > 200 {
		t.Errorf("searched without relay: %d sockets, %d probes", alone.ends[0].sockets, alone.ends[1].sends)
	}
}

func TestSocketsRefused(t *testing.T) {
	w := newWorld(t, 1)
	w.do(LocalChanged{Local{NAT: randomNAT}})
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms)}})
	w.do(remote(natted, srflx("198.51.100.1:4500")))
	w.rtt = answered(20*ms, over(1))
	w.do(Wanted{})
	w.run(2 * time.Second)
	w.wantWhy(ReasonBirthday)
	w.do(SocketsRefused{"too many open files"})
	w.run(20 * time.Second)
	w.wantWhy(ReasonSocketsRefused)
	if d := w.m.Status().Detail; d != "too many open files" {
		t.Errorf("detail %q", d)
	}
}

package portmap

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func TestEpoch(t *testing.T) {
	t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const s = time.Second
	tests := []struct {
		name   string
		proto  Protocol
		after  time.Duration
		first  uint32
		second uint32
		lost   bool
	}{
		{"in step", PCP, 600 * s, 1000, 1600, false},
		{"a second back, by reordering", PCP, 0, 1000, 999, false},
		{"back", PCP, 10 * s, 1000, 998, true},
		{"restarted", PCP, 600 * s, 1000, 5, true},
		{"restarted, but already further", PCP, 3000 * s, 10, 2000, true},
		{"6 % slow", PCP, 1600 * s, 1000, 2500, false},
		{"10 % slow", PCP, 1600 * s, 1000, 2440, true},
		{"6 % fast", PCP, 1600 * s, 1000, 2700, false},
		{"10 % fast", PCP, 1600 * s, 1000, 2760, true},
		{"NAT-PMP in step", NATPMP, 600 * s, 1000, 1600, false},
		{"NAT-PMP 12 % slow", NATPMP, 1600 * s, 1000, 2400, false},
		{"NAT-PMP 13 % slow", NATPMP, 1600 * s, 1000, 2390, true},
		{"NAT-PMP fast is no loss", NATPMP, 10 * s, 1000, 2000, false},
		{"NAT-PMP restarted", NATPMP, 600 * s, 1000, 0, true},
	}
	for _, tt := range tests {
		var e epoch
		if e.see(t0, tt.proto, gwA, tt.first) {
			t.Errorf("%s: the first answer is a loss", tt.name)
		}
		if got := e.see(t0.Add(tt.after), tt.proto, gwA, tt.second); got != tt.lost {
			t.Errorf("%s: lost %t, want %t", tt.name, got, tt.lost)
		}
		if e.see(t0.Add(tt.after), tt.proto, gwA, tt.second) {
			t.Errorf("%s: lost again", tt.name)
		}
		if e.see(t0.Add(tt.after), tt.proto, gwB, 0) {
			t.Errorf("%s: another router's epoch counts", tt.name)
		}
	}
}

// bench is a machine with a clock.
type bench struct {
	t   *testing.T
	m   machine
	now time.Time
}

var (
	gwA = netip.MustParseAddr("192.168.1.1")
	gwB = netip.MustParseAddr("192.168.2.1")
)

func newBench(t *testing.T) *bench {
	b := &bench{t: t, m: machine{port: 4500}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	b.m.routers(b.now, []netip.Addr{gwA}, false)
	b.m.want(b.now, true)
	return b
}

func (b *bench) granted(port uint16, life time.Duration) grant {
	return grant{proto: PCP, gateway: gwA, external: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), port), lifetime: life, epoch: uint32(b.now.Unix() - 1e9)}
}

// expect fails unless the machine now wants exactly that.
func (b *bench) expect(k actionKind) action {
	b.t.Helper()
	a := b.m.next(b.now)
	if a.kind != k {
		b.t.Fatalf("at %v: action %d, want %d; %+v", b.now.Format(time.TimeOnly), a.kind, k, b.m.status())
	}
	return a
}

// after moves the clock to the deadline and fails unless it is that far away.
func (b *bench) after(d time.Duration) {
	b.t.Helper()
	at := b.m.deadline()
	if got := at.Sub(b.now); at.IsZero() || got != d {
		b.t.Fatalf("at %v: next in %v, want %v", b.now.Format(time.TimeOnly), got, d)
	}
	b.expect(actNone)
	b.now = at
}

func TestMachineRenews(t *testing.T) {
	for _, tt := range []struct {
		name       string
		life, half time.Duration
	}{
		{"long", 2 * time.Hour, recheck},
		{"short", 10 * time.Minute, 5 * time.Minute},
		{"without end", 0, recheck},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			if a := b.expect(actMap); a.ask != (ask{4500, 4500}) {
				t.Fatalf("asked for %+v", a.ask)
			}
			b.m.mapped(b.now, b.granted(40000, tt.life), nil)
			b.after(tt.half)
			if a := b.expect(actRenew); a.ask != (ask{4500, 40000}) || a.grant.external.Port() != 40000 {
				t.Fatalf("renews %+v", a)
			}
			b.m.mapped(b.now, b.granted(40000, tt.life), nil)
			b.after(tt.half)
		})
	}
}

func TestMachineBacksOff(t *testing.T) {
	b := newBench(t)
	for _, wait := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute, time.Hour, time.Hour} {
		b.expect(actMap)
		b.m.mapped(b.now, grant{}, ErrSilent)
		b.after(wait)
	}
	b.now = b.now.Add(-30 * time.Minute)
	b.expect(actNone)
	b.m.routers(b.now, []netip.Addr{gwA}, false)
	b.expect(actNone) // nothing changed
	b.m.routers(b.now, []netip.Addr{gwA}, true)
	b.expect(actMap)
	b.m.mapped(b.now, grant{}, ErrSilent)
	b.m.routers(b.now, []netip.Addr{gwA}, true)
	b.after(pokeGap) // however often it is poked
	b.expect(actMap)
	b.m.mapped(b.now, grant{}, &RefusedError{PCP, 8, "", 20 * time.Minute})
	b.after(20 * time.Minute)
	b.expect(actMap)
	b.m.mapped(b.now, grant{}, &RefusedError{PCP, 8, "", 1000 * time.Hour})
	b.after(time.Hour)
}

func TestMachineMissedRenewals(t *testing.T) {
	b := newBench(t)
	b.expect(actMap)
	b.m.mapped(b.now, b.granted(40000, 2*time.Hour), nil)
	end := b.now.Add(2 * time.Hour)
	b.after(recheck)
	n := 0
	for ; b.now.Before(end); n++ {
		b.expect(actRenew)
		b.m.mapped(b.now, grant{}, ErrSilent)
		if s := b.m.status(); s.Protocol == None {
			t.Fatal("given up before its end")
		}
		b.now = b.m.deadline()
	}
	if n < 6 || n > 25 {
		t.Errorf("%d renewals tried", n)
	}
	if a := b.expect(actMap); a.ask.external != 40000 {
		t.Errorf("asks for %d, want the port that we had", a.ask.external)
	}
	if b.m.status().Protocol != None {
		t.Error("offered after its end")
	}
}

func TestMachineRefusedRenewal(t *testing.T) {
	b := newBench(t)
	b.expect(actMap)
	b.m.mapped(b.now, b.granted(40000, time.Hour), nil)
	b.after(recheck)
	b.expect(actRenew)
	b.m.mapped(b.now, grant{}, &RefusedError{PCP, 2, "", 0})
	b.expect(actMap) // at once, perhaps by another protocol
	b.m.mapped(b.now, grant{}, ErrNotSpoken)
	b.after(30 * time.Second)
}

func TestMachineRouterChanges(t *testing.T) {
	b := newBench(t)
	b.expect(actMap)
	b.m.mapped(b.now, b.granted(40000, time.Hour), nil)
	b.now = b.now.Add(time.Minute)
	b.m.routers(b.now, []netip.Addr{gwA, gwB}, false)
	b.expect(actRenew) // the same router still: only looked at
	b.m.mapped(b.now, b.granted(40000, time.Hour), nil)
	b.now = b.now.Add(time.Minute)
	b.m.routers(b.now, []netip.Addr{gwB}, false)
	if b.m.status().Protocol != None {
		t.Fatal("the old router's mapping is still offered")
	}
	b.expect(actMap)
	g := b.granted(40000, time.Hour)
	g.gateway = gwB
	b.m.mapped(b.now, g, nil)
	if a := b.expect(actRemove); a.grant.gateway != gwA {
		t.Fatalf("deletes %+v", a.grant)
	}
	b.after(recheck)
}

func TestMachineStops(t *testing.T) {
	b := newBench(t)
	b.expect(actMap)
	b.m.want(b.now, false) // while the router is asked
	b.m.mapped(b.now, b.granted(40000, time.Hour), nil)
	if b.m.status().Protocol != None {
		t.Error("offered and not wanted")
	}
	b.expect(actRemove)
	b.expect(actNone)
	if !b.m.deadline().IsZero() {
		t.Error("has a deadline and nothing to do")
	}
	b.m.want(b.now, true)
	b.after(pokeGap)
	if a := b.expect(actMap); a.ask.external != 40000 {
		t.Errorf("asks for %d, want the port that we had", a.ask.external)
	}
}

func TestMachineReboot(t *testing.T) {
	b := newBench(t)
	b.expect(actMap)
	b.m.mapped(b.now, b.granted(40000, time.Hour), nil)
	epoch0 := b.m.epoch.server
	b.now = b.now.Add(time.Minute)
	ext := netip.MustParseAddr("203.0.113.1")
	for _, a := range []announcement{
		{gwB, PCP, 3, netip.Addr{}},           // another router
		{gwA, NATPMP, 3, ext},                 // another protocol
		{gwA, PCP, epoch0 + 60, netip.Addr{}}, // nothing lost
	} {
		b.m.announced(b.now, a)
		b.expect(actNone)
	}
	b.m.announced(b.now, announcement{gwA, PCP, 3, netip.Addr{}})
	b.expect(actRenew)
	g := b.granted(40001, time.Hour)
	g.epoch = 3
	b.m.mapped(b.now, g, nil)
	if s := b.m.status(); s.Reboots != 1 || s.External.Port() != 40001 {
		t.Fatalf("%+v", s)
	}
	b.m.announced(b.now, announcement{gwA, PCP, 0, netip.Addr{}}) // forged: no flood
	b.after(pokeGap)
}

// TestMachineRandom checks on random runs what always holds.
func TestMachineRandom(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		b := newBench(t)
		live := map[uint16]bool{} // what the router has
		asked := b.now.Add(-time.Hour)
		for range 200 {
			switch rnd.IntN(8) {
			case 0:
				b.m.want(b.now, rnd.IntN(4) > 0)
			case 1:
				b.m.routers(b.now, [][]netip.Addr{{gwA}, {gwA, gwB}, {gwB}, nil}[rnd.IntN(4)], rnd.IntN(2) == 0)
			case 2:
				b.m.announced(b.now, announcement{gwA, PCP, rnd.Uint32(), netip.Addr{}})
			default:
				if at := b.m.deadline(); at.After(b.now) {
					b.now = at
				}
			}
			a := b.m.next(b.now)
			switch a.kind {
			case actMap, actRenew:
				if !b.m.wanted {
					t.Fatalf("seed %d: asks and wants nothing", seed)
				}
				if gap := b.now.Sub(asked); a.kind == actRenew && gap < renewGap {
					t.Fatalf("seed %d: renewed after %v", seed, gap)
				}
				asked = b.now
				g := b.granted(uint16(1+rnd.IntN(60000)), time.Duration(rnd.IntN(7200)+60)*time.Second)
				err := []error{nil, nil, ErrSilent, &RefusedError{PCP, 2, "", 0}, errors.New("other")}[rnd.IntN(5)]
				if err == nil {
					live[g.external.Port()] = true
				}
				b.m.mapped(b.now, g, err)
			case actRemove:
				if b.m.have.proto != None && b.m.have == a.grant {
					t.Fatalf("seed %d: deletes what it offers", seed)
				}
			case actNone:
				if at := b.m.deadline(); !at.IsZero() && !at.After(b.now) {
					t.Fatalf("seed %d: nothing to do at its deadline: it would spin", seed)
				}
			}
			if s := b.m.status(); s.Protocol != None && (!b.m.wanted || !live[s.External.Port()] || s.Expires.Before(b.now)) {
				t.Fatalf("seed %d: offers %+v", seed, s)
			}
		}
	}
}

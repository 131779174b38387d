package fabric

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"corax/dataplane"
)

func TestNeighboursSteps(t *testing.T) {
	v := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 0, n}) }
	steps := []struct {
		now   time.Duration
		learn byte // VTEP; zero means only look
		want  byte // VTEP; zero means unknown
	}{
		{0, 0, 0},
		{0, 1, 1},
		{time.Second, 2, 2}, // moved: at once
		{time.Second, 1, 1},
		{61 * time.Second, 0, 1},
		{62 * time.Second, 0, 0}, // aged
		{63 * time.Second, 1, 1},
		{70 * time.Second, 1, 1},  // fresh: not written
		{100 * time.Second, 1, 1}, // half way: written
		{150 * time.Second, 0, 1},
		{161 * time.Second, 0, 0},
	}
	var n neighbours
	start := time.Unix(1000, 0)
	for i, s := range steps {
		now := start.Add(s.now)
		if s.learn != 0 && !n.learn(overlayA, v(s.learn), now) {
			t.Fatalf("step %d: refused", i)
		}
		got, ok := n.lookup(overlayA, now)
		if ok != (s.want != 0) || ok && got != v(s.want) {
			t.Errorf("step %d at %v: %v, %v; want %d", i, s.now, got, ok, s.want)
		}
	}
}

func TestNeighboursBounds(t *testing.T) {
	addr := func(i, j int) netip.Addr {
		a := overlaySelf.As16()
		a[13], a[14], a[15] = byte(i>>8), byte(i), byte(j)
		return netip.AddrFrom16(a)
	}
	vtep := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	var n neighbours
	now := time.Unix(1000, 0)
	for j := range 100 {
		now = now.Add(time.Millisecond)
		n.learn(addr(0, j), vtep(0), now)
	}
	if len(n.byAddr) != neighboursPerVTEP || len(n.byVTEP[vtep(0)]) != neighboursPerVTEP {
		t.Fatalf("one VTEP holds %d addresses, want %d", len(n.byAddr), neighboursPerVTEP)
	}
	if _, ok := n.lookup(addr(0, 99), now); !ok {
		t.Error("the newest address is gone")
	}
	for i := range 2 * neighboursMax / neighboursPerVTEP {
		for j := range neighboursPerVTEP {
			n.learn(addr(i, j), vtep(i), now)
		}
	}
	if len(n.byAddr) != neighboursMax {
		t.Errorf("%d addresses, want %d", len(n.byAddr), neighboursMax)
	}
	if n.learn(addr(9999, 0), vtep(9999), now) {
		t.Error("a full table took one more")
	}
	now = now.Add(neighbourTTL + time.Second)
	if !n.learn(addr(9999, 0), vtep(9999), now) || len(n.byAddr) != 1 || len(n.byVTEP) != 1 {
		t.Errorf("%d addresses and %d VTEPs after all but one aged", len(n.byAddr), len(n.byVTEP))
	}
}

// TestNeighboursAgainstOracle compares with a plain map that is never full, and
// checks that the two maps inside agree.
func TestNeighboursAgainstOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	type seen struct {
		vtep netip.Addr
		at   time.Time
	}
	oracle := map[netip.Addr]seen{}
	var n neighbours
	now := time.Unix(1000, 0)
	for range 20_000 {
		now = now.Add(time.Duration(rnd.IntN(4000)) * time.Millisecond)
		a := overlayOf(byte(rnd.IntN(neighboursPerVTEP))) // no VTEP ever has too many
		if rnd.IntN(3) == 0 {
			v := netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(5))})
			n.learn(a, v, now)
			oracle[a] = seen{v, now}
		}
		got, ok := n.lookup(a, now)
		want := oracle[a]
		age := now.Sub(want.at)
		// An entry in its first half is not written again: it may age up to
		// half a minute early.
		if ok && (got != want.vtep || age > neighbourTTL) || !ok && age <= neighbourTTL/2 {
			t.Fatalf("lookup is %v, %v; %v was seen %v ago", got, ok, want.vtep, age)
		}
		listed := 0
		for v, own := range n.byVTEP {
			listed += len(own)
			for _, a := range own {
				if n.byAddr[a].vtep != v {
					t.Fatalf("%v is listed under %v but is behind %v", a, v, n.byAddr[a].vtep)
				}
			}
		}
		if listed != len(n.byAddr) {
			t.Fatalf("%d addresses listed, %d known", listed, len(n.byAddr))
		}
	}
}

// TestLearnedNeighbour: netstack's answer finds the way back to a plain node
// whose key nobody told us, and no other origin can use it.
func TestLearnedNeighbour(t *testing.T) {
	w := newWorld(t)
	answer := spec{src: overlaySelf.String(), dst: overlayA.String()}
	if out := w.send(FromNetstack, netip.Addr{}, answer.udp(nil).build()); len(out[FromVXLAN]) != 0 {
		t.Fatal("answered before anything was learned")
	}
	ping := spec{src: overlayA.String(), dst: overlaySelf.String()}
	w.send(FromVXLAN, vtepA, ping.echo(128).build())
	out := w.send(FromNetstack, netip.Addr{}, answer.echo(129).build())
	if len(out[FromVXLAN]) != 1 || out[FromVXLAN][0].VTEP != vtepA {
		t.Fatalf("answer went to %v", out)
	}
	if r, ok := w.Lookup(overlayA); !ok || r.Via != dataplane.ViaVXLAN || r.VTEP != vtepA || r.Prefix.Addr() != overlayA || r.MTU != 1400 {
		t.Errorf("Lookup says %+v, %v", r, ok)
	}
	out = w.send(FromWireGuard, netip.Addr{}, spec{src: "fd00:2::5", dst: overlayA.String()}.udp(nil).build())
	if len(out[FromVXLAN]) != 0 {
		t.Error("a peer reached a plain node's overlay address")
	}

	// What the configuration names is not learned, from whomever it comes.
	for _, v := range []netip.Addr{vtepA, vtepB} {
		w.send(FromVXLAN, v, spec{src: overlayB.String(), dst: overlaySelf.String()}.echo(128).build())
	}
	if _, ok := w.neighbours.lookup(overlayB, w.now); ok {
		t.Error("learned an address that the configuration names")
	}
	if r, _ := w.Lookup(overlayB); r.VTEP != vtepB {
		t.Errorf("overlay address of B is at %v, want %v", r.VTEP, vtepB)
	}
	// A VTEP that is gone is no way.
	cfg := gatewayConfig()
	cfg.VTEPs = cfg.VTEPs[1:]
	w.apply(t, cfg)
	if r, ok := w.Lookup(overlayA); ok {
		t.Errorf("Lookup says %+v after the VTEP went", r)
	}
}

package path

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// probesTo lists "ms/ttl" of the unpadded probes on a way.
func (w *world) probesTo(way Way) (out []string) {
	for i, s := range w.sends {
		if s.Way == way && s.Size == 0 {
			out = append(out, fmt.Sprintf("%d/%d", w.at[i].Sub(epoch)/ms, s.TTL))
		}
	}
	return out
}

func TestPunchSchedule(t *testing.T) {
	low := []string{"0/2", "150/2", "350/3", "550/4", "700/0", "900/0"}
	plain := []string{"0/0", "200/0", "400/0", "600/0", "800/0", "1000/0"}
	tests := []struct {
		name      string
		nat       NAT
		cand      Candidate
		connected string
		want      []string
	}{
		{"peer behind a NAT", natted, srflx("198.51.100.1:4500"), "", low},
		{"peer's NAT unknown", NAT{}, srflx("198.51.100.1:4500"), "", low},
		{"peer without NAT", NAT{Mapping: MappingNone}, Candidate{Host, addr("198.51.100.1:4500")}, "", plain},
		{"mapped port", natted, Candidate{PortMapped, addr("198.51.100.1:4500")}, "", plain},
		{"same LAN", natted, Candidate{Host, addr("10.1.0.9:4500")}, "10.1.0.0/24", plain},
		{"IPv6", natted, Candidate{Host, addr("[2001:db8::1]:4500")}, "", plain},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 1)
			l := Local{NAT: natted}
			if tt.connected != "" {
				l.Connected = []netip.Prefix{netip.MustParsePrefix(tt.connected)}
			}
			w.do(LocalChanged{l})
			w.do(remote(tt.nat, tt.cand))
			if len(w.log) != 0 {
				t.Fatalf("idle, but did %v", w.log)
			}
			w.do(Wanted{})
			w.run(time.Second)
			got := w.probesTo(Way{Kind: Direct, To: tt.cand.Addr})
			if !slices.Equal(got, tt.want) {
				t.Errorf("probes ms/ttl:\n got %v\nwant %v", got, tt.want)
			}
			w.run(29 * time.Second)
			all := w.probesTo(Way{Kind: Direct, To: tt.cand.Addr})
			if got := all[len(all)-3:]; !slices.Equal(got, []string{"8000/0", "9000/0", "10000/0"}) && tt.want[1] == "200/0" {
				t.Errorf("last probes %v", got)
			}
			w.wantWhy(ReasonNoAnswer)
		})
	}
}

func TestBackOff(t *testing.T) {
	w := newWorld(t, 1)
	far := direct("198.51.100.1:4500")
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms)}})
	w.rtt = answered(20*ms, over(1))
	w.do(remote(natted, srflx("198.51.100.1:4500")))
	rounds := func() (at []int) {
		last := -1000000
		for _, s := range w.probesTo(far) {
			var ms, ttl int
			if _, err := fmt.Sscanf(s, "%d/%d", &ms, &ttl); err != nil {
				t.Fatal(err)
			}
			if ms-last > 15000 {
				at = append(at, ms/1000)
			}
			last = ms
		}
		return at
	}
	for range 200 { // 50 minutes
		w.do(Wanted{})
		w.run(15 * time.Second)
	}
	got := rounds()
	want := []int{0, 39, 109, 239, 489, 979, 1589, 2199, 2809}
	if len(got) != len(want) {
		t.Fatalf("rounds at %v s, want about %v", got, want)
	}
	for i := range got {
		if d := got[i] - want[i]; d < -2 || d > 12 {
			t.Errorf("rounds at %v s, want about %v", got, want)
			break
		}
	}
	w.wantWhy(ReasonNoAnswer)
	for name, ev := range map[string]Event{
		"network": NetworkChanged{"test"},
		"remote":  remote(natted, srflx("198.51.100.1:4501"), srflx("198.51.100.1:4500")),
		"local":   LocalChanged{Local{Candidates: []Candidate{srflx("203.0.113.1:1")}}},
	} {
		w.clearLog()
		w.do(ev)
		w.run(ms)
		if len(w.probesTo(far)) != 1 {
			t.Errorf("%s changed: probes %v, want one at once", name, w.log)
		}
		w.do(Wanted{})
		w.run(50 * time.Second)
	}
}

func TestProbeInMovesOn(t *testing.T) {
	w := newWorld(t, 1)
	far := direct("198.51.100.1:4500")
	w.do(remote(natted, srflx("198.51.100.1:4500")))
	w.do(Wanted{})
	w.run(100 * ms)
	w.do(ProbeIn{Way: far})
	if got := w.probesTo(far); !slices.Equal(got, []string{"0/2", "100/0"}) {
		t.Errorf("probes %v", got)
	}
	// From elsewhere: a peer-reflexive candidate, probed back at once.
	other := direct("198.51.100.1:61000")
	w.do(ProbeIn{Way: other})
	if got := w.probesTo(other); !slices.Equal(got, []string{"100/0"}) {
		t.Errorf("probes to the new source %v", got)
	}
	w.rtt = answered(30*ms, other)
	w.run(300 * ms)
	w.wantUsed(other)
	w.wantWhy(ReasonBest)
}

func TestProbeInAfterTheRound(t *testing.T) {
	w := newWorld(t, 1)
	w.do(RelaysChanged{[]RelayWay{relay(1, 20*ms)}})
	w.do(remote(natted, srflx("198.51.100.1:4500")))
	w.rtt = answered(30*ms, over(1), far4)
	w.m.local.NAT.Blocked = true // nothing goes out for now
	w.do(Wanted{})
	w.run(time.Second)
	w.m.local.NAT.Blocked = false
	for _, p := range w.m.pairs {
		p.step, p.low, p.next = 50, false, time.Time{}
	}
	w.do(ProbeIn{Way: far4})
	w.run(30 * ms)
	w.wantUsed(far4)
}

func TestCallIsAnswered(t *testing.T) {
	w := newWorld(t, 1)
	ev := remote(natted, srflx("198.51.100.1:4500"))
	ev.Call = true
	w.do(ev)
	want := []string{"0 announce false", "0 probe direct 198.51.100.1:4500 ttl 2 size 0"}
	if !slices.Equal(w.log, want) {
		t.Errorf("did %q, want %q", w.log, want)
	}
	w.run(20 * time.Second)
	w.clearLog()
	w.do(ev) // equal, but a call
	if len(w.log) != 2 {
		t.Errorf("a second call: did %q", w.log)
	}
	w.clearLog()
	for range 10 {
		w.do(ev)
	}
	if len(w.log) > 0 {
		t.Errorf("calls within a second: did %q", w.log)
	}
}

func TestAllowed(t *testing.T) {
	l := Local{
		Own:       []netip.Addr{netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("2001:db8::7")},
		Connected: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
		Forbidden: []netip.Prefix{netip.MustParsePrefix("fd63:6f72:6178::/48"), netip.MustParsePrefix("10.42.0.0/16")},
	}
	tests := []struct {
		addr      string
		edge, hub bool
	}{
		{"198.51.100.1:4500", true, true},
		{"198.51.100.1:0", false, false},
		{"192.168.1.7:4500", false, false},
		{"192.168.1.8:4500", true, true},
		{"192.168.1.255:4500", false, false},
		{"192.168.1.0:4500", false, false},
		{"192.168.2.8:4500", true, false},
		{"172.16.0.1:4500", true, false},
		{"100.64.0.1:4500", true, false},
		{"10.42.3.4:4500", false, false},
		{"127.0.0.1:4500", false, false},
		{"0.0.0.0:4500", false, false},
		{"0.1.2.3:4500", false, false},
		{"224.0.0.1:4500", false, false},
		{"255.255.255.255:4500", false, false},
		{"169.254.169.254:80", false, false},
		{"[::]:4500", false, false},
		{"[::1]:4500", false, false},
		{"[fe80::1]:4500", false, false},
		{"[ff02::1]:4500", false, false},
		{"[::ffff:198.51.100.1]:4500", false, false},
		{"[2001:db8::7]:4500", false, false},
		{"[2001:db8::8]:4500", true, true},
		{"[fd00::1]:4500", true, false},
		{"[fd63:6f72:6178::1]:4500", false, false},
	}
	for _, tt := range tests {
		for _, isHub := range []bool{false, true} {
			want := tt.edge
			if isHub {
				want = tt.hub
			}
			l.Hub = isHub
			w := newWorld(t, 1)
			w.do(LocalChanged{l})
			w.do(remote(natted, Candidate{Host, addr(tt.addr)}))
			w.do(Wanted{})
			w.do(ProbeIn{Way: direct(tt.addr)})
			w.run(time.Second)
			if got := len(w.sends) > 0; got != want {
				t.Errorf("%s, hub %v: probed %v, want %v", tt.addr, isHub, got, want)
			}
			if st := w.m.Status(); !want && (len(st.Candidates) != 1 || st.Candidates[0].Why != ReasonForbidden) {
				t.Errorf("%s: status does not say forbidden: %+v", tt.addr, st.Candidates)
			}
		}
	}
}

func TestCandidateBound(t *testing.T) {
	w := newWorld(t, 1)
	var cands []Candidate
	for i := range 300 {
		cands = append(cands, Candidate{Host, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), uint16(2000+i))})
	}
	w.do(remote(natted, cands...))
	w.do(Wanted{})
	for i := range 300 {
		w.do(ProbeIn{Way: direct(fmt.Sprintf("198.51.100.2:%d", 2000+i))})
	}
	if n := len(w.m.Status().Candidates); n > maxCandidates+maxReflexive {
		t.Errorf("%d candidates", n)
	}
}

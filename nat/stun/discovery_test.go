package stun

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func plain(addrs ...string) (out []*simServer) {
	for _, a := range addrs {
		out = append(out, &simServer{addr: ap(a)})
	}
	return out
}

func twoPlain() []*simServer { return plain("192.0.2.1:3478", "203.0.113.1:4500") }

func rfc() []*simServer {
	return []*simServer{{addr: ap("192.0.2.1:3478"), other: ap("192.0.2.2:3479"), responsePort: true}}
}

func TestDiscovery(t *testing.T) {
	sequential := func(step int) simNAT {
		return simNAT{mapping: MappingAddressAndPortDependent, filtering: FilteringAddressAndPortDependent, ports: counting(40000, step)}
	}
	const (
		ei, ad, apd    = MappingEndpointIndependent, MappingAddressDependent, MappingAddressAndPortDependent
		fei, fad, fapd = FilteringEndpointIndependent, FilteringAddressDependent, FilteringAddressAndPortDependent
	)
	for _, tt := range []struct {
		name    string
		nat     simNAT
		servers []*simServer
		want    Family // Public and Servers are not compared
		within  time.Duration
		words   string
	}{
		{
			name: "no NAT, two servers", nat: simNAT{mapping: MappingNone, filtering: fei}, servers: twoPlain(),
			want: Family{Mapping: MappingNone, PortPreserved: true}, within: time.Second, words: "no NAT, unknown filtering",
		},
		{
			name: "no NAT, RFC 5780", nat: simNAT{mapping: MappingNone, filtering: fei}, servers: rfc(),
			want: Family{Mapping: MappingNone, Filtering: fei, PortPreserved: true}, within: 4 * time.Second,
		},
		{
			name: "firewall", nat: simNAT{mapping: MappingNone, filtering: fapd}, servers: rfc(),
			want: Family{Mapping: MappingNone, Filtering: fapd, PortPreserved: true}, within: 4 * time.Second,
		},
		{
			name: "full cone, two servers", nat: simNAT{mapping: ei, filtering: fei, preserve: true}, servers: twoPlain(),
			want:  Family{Mapping: ei, PortPreserved: true, Hairpin: No},
			words: "endpoint-independent mapping, unknown filtering, port preservation, no hairpinning",
		},
		{
			name: "full cone", nat: simNAT{mapping: ei, filtering: fei, preserve: true, hairpin: true}, servers: rfc(),
			want: Family{Mapping: ei, Filtering: fei, PortPreserved: true, Hairpin: Yes},
		},
		{
			name: "restricted", nat: simNAT{mapping: ei, filtering: fad, ports: random(1), hairpin: true}, servers: rfc(),
			want: Family{Mapping: ei, Filtering: fad, Hairpin: Yes},
		},
		{
			name: "port restricted", nat: simNAT{mapping: ei, filtering: fapd, ports: random(1), hairpin: true}, servers: rfc(),
			want:  Family{Mapping: ei, Filtering: fapd, Hairpin: Yes},
			words: "endpoint-independent mapping, address and port-dependent filtering, hairpinning",
		},
		{
			name: "address-dependent", nat: simNAT{mapping: ad, filtering: fad, ports: random(1)}, servers: rfc(),
			want: Family{Mapping: ad, Filtering: fad, Hairpin: No},
		},
		{
			name: "symmetric random", nat: simNAT{mapping: apd, filtering: fapd, ports: random(1)}, servers: rfc(),
			want:  Family{Mapping: apd, Filtering: fapd, Hairpin: No},
			words: "address and port-dependent mapping, address and port-dependent filtering, ports not predictable, no hairpinning",
		},
		{
			name: "symmetric random, two servers", nat: simNAT{mapping: apd, filtering: fapd, ports: random(2)}, servers: twoPlain(),
			want: Family{Mapping: apd, Hairpin: No},
		},
		{
			name: "symmetric sequential", nat: sequential(1), servers: rfc(),
			want:  Family{Mapping: apd, Filtering: fapd, PortStep: 1, Hairpin: No},
			words: "address and port-dependent mapping, address and port-dependent filtering, ports in steps of +1, no hairpinning",
		},
		{
			name: "symmetric sequential, two servers", nat: sequential(1), servers: twoPlain(),
			want: Family{Mapping: apd, PortStep: 1, Hairpin: No},
		},
		{name: "by twos", nat: sequential(2), servers: twoPlain(), want: Family{Mapping: apd, PortStep: 2, Hairpin: No}},
		{name: "downwards", nat: sequential(-1), servers: twoPlain(), want: Family{Mapping: apd, PortStep: -1, Hairpin: No}},
		{
			name: "two servers at one address", nat: simNAT{mapping: apd, filtering: fapd, ports: random(3)},
			servers: plain("192.0.2.1:3478", "192.0.2.1:3479"), want: Family{Mapping: apd, Hairpin: No},
		},
		{
			name: "two servers at one address, same mapping", nat: simNAT{mapping: ei, filtering: fapd, preserve: true},
			servers: plain("192.0.2.1:3478", "192.0.2.1:3479"), want: Family{PortPreserved: true, Hairpin: No},
		},
		{
			name: "one plain server", nat: simNAT{mapping: ei, filtering: fapd, preserve: true}, servers: plain("192.0.2.1:3478"),
			want: Family{PortPreserved: true, Hairpin: No}, words: "unknown mapping, unknown filtering",
		},
		{
			name: "one of three is dead", nat: simNAT{mapping: ei, filtering: fapd, preserve: true},
			servers: append(twoPlain(), &simServer{addr: ap("192.0.2.99:1"), dead: true}),
			want:    Family{Mapping: ei, PortPreserved: true, Hairpin: No},
		},
		{
			name: "all dead", nat: simNAT{mapping: ei, filtering: fapd, preserve: true},
			servers: []*simServer{{addr: ap("192.0.2.9:1"), dead: true}, {addr: ap("192.0.2.99:1"), dead: true}},
			want:    Family{Blocked: true}, within: 3 * time.Second, words: "UDP blocked",
		},
		{
			name: "CHANGE-REQUEST refused", nat: simNAT{mapping: ei, filtering: fei, preserve: true},
			servers: []*simServer{{addr: ap("192.0.2.1:3478"), other: ap("192.0.2.2:3479"), refuses: true}},
			want:    Family{Mapping: ei, PortPreserved: true, Hairpin: No},
		},
		{
			name: "CHANGE-REQUEST ignored", nat: simNAT{mapping: ei, filtering: fapd, preserve: true},
			servers: []*simServer{{addr: ap("192.0.2.1:3478"), other: ap("192.0.2.2:3479"), ignores: true}},
			want:    Family{Mapping: ei, PortPreserved: true, Hairpin: No},
		},
		{
			name: "RFC 5780 server second", nat: simNAT{mapping: ei, filtering: fad, preserve: true},
			servers: append(plain("203.0.113.1:4500"), rfc()...),
			want:    Family{Mapping: ei, Filtering: fad, PortPreserved: true, Hairpin: No},
		},
		{
			name: "both addresses of one server", nat: simNAT{mapping: ei, filtering: fapd, preserve: true},
			servers: []*simServer{rfc()[0], {addr: ap("192.0.2.2:3479"), other: ap("192.0.2.1:3478")}},
			want:    Family{Mapping: ei, Filtering: fapd, PortPreserved: true, Hairpin: No},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, tt.nat, tt.servers...)
			d := s.run(Config{}, time.Minute)
			if !d.Done() || !d.Deadline().IsZero() {
				t.Fatalf("not done, deadline %v", d.Deadline())
			}
			got := d.Report()
			f := got.Family
			f.Public, f.Servers = nil, nil
			if diff := cmp.Diff(tt.want, f); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if took := s.now.Sub(testStart); tt.within != 0 && took > tt.within {
				t.Errorf("took %v, want %v", took, tt.within)
			}
			if words := got.Family.String(); !strings.HasPrefix(words, tt.words) {
				t.Errorf("in words %q, want %q", words, tt.words)
			}
			if len(s.sent) > 60 {
				t.Errorf("%d packets sent", len(s.sent))
			}
		})
	}
}

// Whatever single packet of the host is lost, the result is the same.
func TestDiscoveryLoss(t *testing.T) {
	n := func() simNAT {
		return simNAT{mapping: MappingEndpointIndependent, filtering: FilteringAddressDependent, ports: random(1), hairpin: true}
	}
	clean := newSim(t, n(), rfc()...)
	want := clean.run(Config{}, time.Minute).Report()
	for lost := 1; lost <= len(clean.sent); lost++ {
		s := newSim(t, n(), rfc()...)
		s.drop = func(i int, _ simPacket) bool { return i == lost }
		got := s.run(Config{}, time.Minute).Report()
		if got.Mapping != want.Mapping || got.Filtering != want.Filtering || got.Hairpin != want.Hairpin || got.Blocked {
			t.Errorf("packet %d lost: %v, want %v", lost, &got.Family, &want.Family)
		}
	}
}

func TestDiscoveryServers(t *testing.T) {
	servers := append(twoPlain(), &simServer{addr: ap("192.0.2.99:1"), dead: true})
	s := newSim(t, simNAT{mapping: MappingAddressAndPortDependent, filtering: FilteringAddressAndPortDependent, ports: counting(40000, 1)}, servers...)
	s.drop = func(n int, p simPacket) bool { return n == 2 } // the first request to the second server
	got := s.run(Config{}, time.Minute).Report()
	want := []ServerReport{
		{Addr: servers[0].addr, Answered: true, RTT: 2 * simDelay, Mapped: ap("198.51.100.7:40000")},
		{Addr: servers[1].addr, Answered: true, RTT: rto + 2*simDelay, Mapped: ap("198.51.100.7:40002")},
		{Addr: servers[2].addr},
	}
	opt := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if diff := cmp.Diff(want, got.Servers, opt); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
	if want := []netip.AddrPort{ap("198.51.100.7:40000"), ap("198.51.100.7:40002")}; !slices.Equal(got.Public, want) {
		t.Errorf("public %v, want %v", got.Public, want)
	}
}

func TestDiscoveryFamilies(t *testing.T) {
	v6 := &simServer{addr: ap("[2001:db8:1::1]:3478"), other: ap("[2001:db8:1::2]:3479")}
	local := []netip.AddrPort{ap("10.0.0.2:4500"), ap("[2001:db8::1]:4500")}
	s := newSim(t, simNAT{mapping: MappingEndpointIndependent, filtering: FilteringAddressDependent, preserve: true}, append(rfc(), v6)...)
	r := s.run(Config{Local: local}, time.Minute).Report()
	if r.V4.Mapping != MappingEndpointIndependent || r.V6.Mapping != MappingNone || r.Mapping != r.V4.Mapping {
		t.Errorf("v4 %v; v6 %v; %v", &r.V4, &r.V6, &r.Family)
	}
	if r.V4.Filtering != FilteringAddressDependent || r.V6.Filtering != FilteringEndpointIndependent {
		t.Errorf("v4 %v; v6 %v", &r.V4, &r.V6)
	}
	if len(r.Public) != 2 || len(r.Servers) != 2 || r.Blocked {
		t.Errorf("public %v, servers %v, blocked %v", r.Public, r.Servers, r.Blocked)
	}

	s = newSim(t, simNAT{mapping: MappingEndpointIndependent, preserve: true}, &simServer{addr: ap("192.0.2.1:1"), dead: true}, v6)
	r = s.run(Config{Local: local}, time.Minute).Report()
	if !r.V4.Blocked || r.V6.Blocked || r.Blocked || r.Mapping != MappingNone || len(r.Servers) != 2 {
		t.Errorf("v4 %v; v6 %v; %v", &r.V4, &r.V6, &r.Family)
	}
}

func TestDiscoveryNoOther(t *testing.T) {
	s := newSim(t, simNAT{mapping: MappingAddressDependent, filtering: FilteringAddressDependent, ports: random(1)}, rfc()...)
	d := s.run(Config{NoOther: true, MaxLifetime: time.Minute}, time.Hour)
	if r := d.Report(); !d.Done() || r.Mapping != MappingAddressDependent || r.Filtering != FilteringUnknown || r.Hairpin != Unknown {
		t.Errorf("done %v, %v", d.Done(), &r.Family)
	}
	for _, p := range s.sent {
		if p.src != s.tunnel {
			t.Errorf("sent from %v", p.src)
		}
	}
}

func TestDiscoveryNobodyToAsk(t *testing.T) {
	d := NewDiscovery(Config{Servers: []netip.AddrPort{{}, ap("0.0.0.0:1"), ap("192.0.2.1:0")}})
	if d.Done() || !d.Deadline().IsZero() {
		t.Error("done before it began")
	}
	if out := d.Step(testStart, Tick{}); len(out) != 0 || !d.Done() || d.Report().Blocked {
		t.Errorf("%d actions, done %v, %+v", len(out), d.Done(), d.Report())
	}
}

// A server cannot make us send to others, nor can somebody who sees no request
// make us believe anything.
func TestDiscoveryHostile(t *testing.T) {
	for _, claim := range []string{"224.0.0.1:1", "255.255.255.255:1", "0.0.0.0:1", "127.0.0.1:1", "10.0.0.1:1", "169.254.1.1:1", "[2001:db8::9]:1", "192.0.2.1:9", "203.0.113.9:0", "203.0.113.9:3478"} {
		s := newSim(t, simNAT{mapping: MappingEndpointIndependent, filtering: FilteringEndpointIndependent, preserve: true},
			&simServer{addr: ap("192.0.2.1:3478"), claims: ap(claim)})
		s.run(Config{}, time.Minute)
		for _, p := range s.sent {
			if p.dst != ap("192.0.2.1:3478") && p.dst.Addr() != s.nat.wan {
				t.Errorf("OTHER-ADDRESS %s: sent to %v", claim, p.dst)
			}
		}
	}
	forged := func(tx TxID, src netip.AddrPort, dst netip.AddrPort) simPacket {
		b := appendXOR(appendHeader(nil, bindingSuccess, tx), tx, ap("6.6.6.6:6"))
		setLength(b, len(b))
		return simPacket{src: src, dst: dst, data: b}
	}
	s := newSim(t, simNAT{mapping: MappingEndpointIndependent, filtering: FilteringEndpointIndependent, preserve: true}, twoPlain()...)
	s.forge = func(p simPacket) []simPacket {
		return []simPacket{forged(TxID{1}, p.dst, p.src), forged(TxID(p.data[8:20]), ap("6.6.6.6:6"), p.src)}
	}
	if r := s.run(Config{}, time.Minute).Report(); r.Mapping != MappingEndpointIndependent || slices.Contains(r.Public, ap("6.6.6.6:6")) {
		t.Errorf("forged answers believed: %v, %v", &r.Family, r.Public)
	}
}

func TestLifetime(t *testing.T) {
	const fapd = FilteringAddressAndPortDependent
	for _, tt := range []struct {
		name     string
		nat      simNAT
		servers  []*simServer
		min, max time.Duration // of the result
	}{
		{"RESPONSE-PORT, 35 s", simNAT{mapping: MappingEndpointIndependent, filtering: fapd, preserve: true, lifetime: 35 * time.Second}, rfc(), 29 * time.Second, 35 * time.Second},
		{"RESPONSE-PORT, 12 s", simNAT{mapping: MappingEndpointIndependent, filtering: fapd, preserve: true, lifetime: 12 * time.Second}, rfc(), 7 * time.Second, 12 * time.Second},
		{"RESPONSE-PORT, 120 s", simNAT{mapping: MappingEndpointIndependent, filtering: fapd, ports: random(1), lifetime: 2 * time.Minute}, rfc(), 105 * time.Second, 2 * time.Minute},
		{"RESPONSE-PORT, for ever", simNAT{mapping: MappingEndpointIndependent, filtering: fapd, preserve: true}, rfc(), 5 * time.Minute, 5 * time.Minute},
		{"asking again, 35 s", simNAT{mapping: MappingAddressAndPortDependent, filtering: fapd, ports: counting(40000, 1), lifetime: 35 * time.Second}, twoPlain(), 29 * time.Second, 35 * time.Second},
		{"asking again, 200 s", simNAT{mapping: MappingEndpointIndependent, filtering: fapd, ports: random(3), lifetime: 200 * time.Second}, twoPlain(), 175 * time.Second, 200 * time.Second},
		{"asking again, for ever", simNAT{mapping: MappingEndpointIndependent, filtering: fapd, ports: random(3)}, twoPlain(), 0, 0},
		{"ports preserved hide it", simNAT{mapping: MappingEndpointIndependent, filtering: fapd, preserve: true, lifetime: 35 * time.Second}, twoPlain(), 0, 0},
		{"no NAT", simNAT{mapping: MappingNone, filtering: fapd}, rfc(), 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, tt.nat, tt.servers...)
			d := s.run(Config{MaxLifetime: 5 * time.Minute}, time.Hour)
			got := d.Report().Lifetime
			if !d.Done() || got < tt.min || got > tt.max {
				t.Errorf("done %v, lifetime %v, want %v to %v", d.Done(), got, tt.min, tt.max)
			}
			if took := s.now.Sub(testStart); took > 25*time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

// The behaviour is known long before the lifetime, and a server that dies in
// between ends the search.
func TestLifetimeServerDies(t *testing.T) {
	servers := rfc()
	s := newSim(t, simNAT{mapping: MappingEndpointIndependent, filtering: FilteringAddressDependent, preserve: true, lifetime: time.Minute}, servers...)
	d := s.run(Config{MaxLifetime: 5 * time.Minute}, 10*time.Second)
	if !d.Ready() || d.Done() || d.Report().Filtering != FilteringAddressDependent {
		t.Fatalf("ready %v, done %v, %v", d.Ready(), d.Done(), d.Report())
	}
	servers[0].dead = true
	for !d.Done() {
		s.now = d.Deadline()
		s.do(d.Step(s.now, Tick{}))
		s.queue = nil
	}
	if got := d.Report().Lifetime; got != 0 {
		t.Errorf("lifetime %v measured without a server", got)
	}
}

func TestPortStep(t *testing.T) {
	for _, tt := range []struct {
		name string
		runs [][]uint16
		want int
	}{
		{"nothing", nil, 0},
		{"one", [][]uint16{{4500}}, 0},
		{"by one", [][]uint16{{40000, 40001, 40002}}, 1},
		{"two runs", [][]uint16{{40000, 40001}, {40007, 40008}}, 1},
		{"others in between", [][]uint16{{40000, 40002, 40003, 40007}}, 1},
		{"others in between, by two", [][]uint16{{40000, 40002, 40008, 40012}}, 2},
		{"by four, wide", [][]uint16{{40000, 40004, 40008}}, 4},
		{"downwards", [][]uint16{{40000, 39999, 39998}}, -1},
		{"wrap", [][]uint16{{65534, 65535, 1024, 1025}}, 1},
		{"wrap downwards", [][]uint16{{1025, 1024, 65535, 65534}}, -1},
		{"wrap of 64 ports", [][]uint16{{40062, 40063, 40000, 40001}}, 1},
		{"wrap in the middle of two", [][]uint16{{65535, 1024}, {1030, 1031}}, 0},
		{"same mapping twice", [][]uint16{{40000, 40000, 40001, 40001}}, 1},
		{"random", [][]uint16{{40000, 12345, 53001, 22000}}, 0},
		{"random with one near pair", [][]uint16{{40000, 40003, 53001, 22000}}, 0},
		{"up and down", [][]uint16{{40000, 40001, 40000}}, 0},
	} {
		if got := portStep(tt.runs...); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// Of a thousand random NATs few may be taken for ones that count.
func TestPortStepRandom(t *testing.T) {
	wrong := 0
	for seed := range uint64(1000) {
		p := random(seed)
		if portStep([]uint16{p(0), p(0), p(0)}, []uint16{p(0), p(0)}) != 0 {
			wrong++
		}
	}
	if wrong > 5 {
		t.Errorf("%d of 1000 random NATs taken for counting ones", wrong)
	}
}

func TestSetFiltering(t *testing.T) {
	answered := []ServerReport{{Answered: true}}
	both := Report{V4: Family{Servers: answered}, V6: Family{Servers: answered}}
	only6 := Report{V6: Family{Servers: answered}}
	known := Report{V4: Family{Servers: answered, Filtering: FilteringAddressDependent}}
	for _, tt := range []struct {
		name          string
		r             Report
		want4, want6  Filtering
		wantTheReport Filtering
	}{
		{"IPv4 matters", both, FilteringEndpointIndependent, FilteringUnknown, FilteringEndpointIndependent},
		{"IPv6 matters", only6, FilteringUnknown, FilteringEndpointIndependent, FilteringEndpointIndependent},
		{"a server told it", known, FilteringAddressDependent, FilteringUnknown, FilteringAddressDependent},
	} {
		tt.r.summary()
		tt.r.SetFiltering(FilteringEndpointIndependent)
		if tt.r.V4.Filtering != tt.want4 || tt.r.V6.Filtering != tt.want6 || tt.r.Filtering != tt.wantTheReport {
			t.Errorf("%s: %v, v4 %v, v6 %v", tt.name, tt.r.Filtering, tt.r.V4.Filtering, tt.r.V6.Filtering)
		}
	}
}

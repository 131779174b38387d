package stun

import (
	"net/netip"
	"testing"
	"time"

	pion "github.com/pion/stun/v3"
)

var testStart = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// request is a Binding request with the attributes added that are given by type,
// all with 4 bytes.
func request(types ...pion.AttrType) []byte {
	b := AppendRequest(nil, testTx, RequestOptions{})
	for _, t := range types {
		b = append(appendAttr(b, t, 4), 0, 0, 0, 0)
	}
	setLength(b, len(b))
	return b
}

func TestServerAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		req    []byte
		from   netip.AddrPort
		size   int // zero: no answer
		reason string
	}{
		{"plain v4", request(), addr4, 32, "success"},
		{"plain v6", request(), addr6, 44, "success"},
		{"v4 in v6", request(), netip.MustParseAddrPort("[::ffff:203.0.113.10]:4500"), 32, "success"},
		{"fingerprint v4", appendFingerprint(request(), 0), addr4, 40, "success"},
		{"fingerprint v6 does not fit", appendFingerprint(request(), 0), addr6, 44, "success"},
		{"software", request(pion.AttrSoftware), addr4, 32, "success"},
		{"little padding", AppendRequest(nil, testTx, RequestOptions{Padding: 4}), addr4, 0, "answer_larger_than_request"},
		{"padding v4", AppendRequest(nil, testTx, RequestOptions{Padding: 8}), addr4, 32, "success"},
		{"padding v6", AppendRequest(nil, testTx, RequestOptions{Padding: 8}), addr6, 0, "answer_larger_than_request"},
		{"much padding", AppendRequest(nil, testTx, RequestOptions{Padding: 1400}), addr6, 44, "success"},
		{"change request", AppendRequest(nil, testTx, RequestOptions{ChangePort: true}), addr4, 0, "change_request"},
		{"change nothing", request(pion.AttrChangeRequest), addr4, 0, "change_request"},
		{"unknown, short", request(0x7ff0), addr4, 0, "unknown_attribute"},
		{"unknown", request(0x7ff0, pion.AttrSoftware), addr4, 36, "unknown_attribute"},
		{"three unknown", request(0x7ff0, 0x7ff1, 0x7ff2), addr4, 36, "unknown_attribute"},
		{"response port", AppendRequest(nil, testTx, RequestOptions{ResponsePort: 53}), addr4, 0, "unknown_attribute"},
		{"probe", probe(t, 0), addr4, 0, "not_a_request"},
		{"ICE", request(pion.AttrUsername), addr4, 0, "not_a_request"},
		{"response", AppendAnswer(nil, testTx, addr4, testKey()), addr4, 0, "not_a_request"},
		{"malformed", request(pion.AttrSoftware)[:24], addr4, 0, "malformed"},
		{"noise", []byte{1, 2, 3}, addr4, 0, "malformed"},
		{"port 0", request(), netip.MustParseAddrPort("203.0.113.10:0"), 0, "source"},
		{"multicast", request(), netip.MustParseAddrPort("224.0.0.1:9"), 0, "source"},
		{"broadcast", request(), netip.MustParseAddrPort("255.255.255.255:9"), 0, "source"},
		{"no address", request(), netip.AddrPort{}, 0, "source"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Server
			out, ok := s.Answer([]byte{0xee}, tt.req, tt.from, testStart)
			if ok != (tt.size > 0) || len(out) != 1+tt.size || out[0] != 0xee {
				t.Fatalf("%d bytes, %v, want %d", len(out)-1, ok, tt.size)
			}
			for _, c := range s.Counters() {
				want := uint64(0)
				if c.Reason == tt.reason && (c.Name == "nat_stun_server_answer_total") == ok {
					want = 1
				}
				if c.Value != want {
					t.Errorf("%s{%s} is %d, want %d", c.Name, c.Reason, c.Value, want)
				}
			}
			if !ok {
				return
			}
			m, err := Parse(out[1:])
			want := netip.AddrPortFrom(tt.from.Addr().Unmap(), tt.from.Port())
			if err != nil || m.Tx != testTx || m.Kind == KindResponse && m.Mapped != want || m.Kind == KindRefusal && m.Code != 420 {
				t.Errorf("answer %+v, %v", m, err)
			}
		})
	}
}

func TestServerRate(t *testing.T) {
	var s Server
	ask := func(from string, at time.Duration) bool {
		_, ok := s.Answer(nil, request(), netip.MustParseAddrPort(from), testStart.Add(at))
		return ok
	}
	count := func(from func(i int) string, at time.Duration, n int) (ok int) {
		for i := range n {
			if ask(from(i), at) {
				ok++
			}
		}
		return ok
	}
	same4 := func(i int) string { return netip.AddrPortFrom(addr4.Addr(), uint16(1+i)).String() }
	same64 := func(i int) string {
		a := netip.MustParseAddr("2001:db8::").As16()
		a[15], a[8] = byte(i), byte(i)
		return netip.AddrPortFrom(netip.AddrFrom16(a), 9).String()
	}
	if n := count(same4, 0, 500); n != serverBurst {
		t.Errorf("%d answers at once to one address, want %d", n, serverBurst)
	}
	if n := count(same4, time.Second, 500); n != serverRate {
		t.Errorf("%d answers after a second, want %d", n, serverRate)
	}
	if n := count(same4, time.Hour, 500); n != serverBurst {
		t.Errorf("%d answers after an hour, want %d", n, serverBurst)
	}
	if n := count(same4, 0, 500); n != serverBurst {
		t.Errorf("%d answers after the clock was set back, want %d", n, serverBurst)
	}
	if n := count(same64, time.Hour, 250); n != serverBurst {
		t.Errorf("%d answers at once to one /64, want %d", n, serverBurst)
	}
	if n := s.reasons[dropRate].Load(); n != 4*500+250-4*serverBurst-serverRate {
		t.Errorf("%d drops counted", n)
	}
}

// A flood from all over the world takes no more memory, and the answers are
// bounded too.
func TestServerFlood(t *testing.T) {
	var s Server
	ok := 0
	const sources, each = 2 * serverSlots, 2 * serverBurst
	buf, req := make([]byte, 0, 64), request()
	for i := range sources {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 7)
		for range each {
			if _, y := s.Answer(buf, req, from, testStart); y {
				ok++
			}
		}
	}
	if most := serverSlots * serverBurst; ok > most || ok < most/2 || len(s.limit.slots) != serverSlots {
		t.Errorf("%d answers, %d slots, want at most %d answers", ok, len(s.limit.slots), most)
	}
}

func TestServerAllocs(t *testing.T) {
	var s Server
	buf, req := make([]byte, 0, 64), request()
	at := testStart
	if n := testing.AllocsPerRun(1000, func() {
		at = at.Add(time.Second)
		if _, ok := s.Answer(buf, req, addr6, at); !ok {
			t.Fatal("no answer")
		}
		s.Answer(buf, req[:7], addr6, at)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkServer(b *testing.B) {
	var s Server
	buf, req := make([]byte, 0, 64), request()
	at := testStart
	for b.Loop() {
		at = at.Add(time.Second)
		if _, ok := s.Answer(buf, req, addr4, at); !ok {
			b.Fatal("no answer")
		}
	}
}

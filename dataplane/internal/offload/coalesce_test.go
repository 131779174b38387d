package offload

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"corax/dataplane"
)

// stream is n packets of one flow that follow each other.
func stream(s spec, n, size int) []spec {
	var out []spec
	for i := range n {
		p := s
		p.seq, p.id = s.seq+uint32(i*size), s.id+uint16(i)
		p.payload = pattern(size, i)
		out = append(out, p)
	}
	return out
}

func built(specs []spec) [][]byte {
	var out [][]byte
	for _, s := range specs {
		out = append(out, s.build())
	}
	return out
}

var (
	tcp4 = spec{sport: 1000, df: true, ttl: 63, seq: 0xfffff000, ack: 5, flags: tcpACK, window: 99, options: timestamps}
	tcp6 = spec{v6: true, sport: 1000, ttl: 63, seq: 100, ack: 5, flags: tcpACK, window: 99, options: timestamps}
	udp4 = spec{udp: true, sport: 1000, ttl: 63, id: 7}
	udp6 = spec{udp: true, v6: true, sport: 1000, ttl: 63}
)

func TestCoalesceWhole(t *testing.T) {
	for _, row := range []struct {
		name string
		spec spec
		n    int
		size int
		want []int // packets per write
	}{
		{"tcp4", tcp4, 40, 1356, []int{40}},
		{"tcp6", tcp6, 40, 1336, []int{40}},
		{"udp4", udp4, 40, 1380, []int{40}},
		{"udp6", udp6, 40, 1360, []int{40}},
		{"odd size", tcp4, 5, 333, []int{5}},
		{"one", tcp4, 1, 100, []int{1}},
		{"64 KiB", tcp4, 60, 1356, []int{48, 12}},
		{"64 KiB v6", tcp6, 50, 8800, []int{7, 7, 7, 7, 7, 7, 7, 1}},
		{"iovecs bounded", udp4, 200, 10, []int{128, 72}},
	} {
		t.Run(row.name, func(t *testing.T) {
			in := built(stream(row.spec, row.n, row.size))
			c := Coalescer{TCP: true, UDP: true}
			got := c.Coalesce(packets(in...))
			if len(got) != len(row.want) {
				t.Fatalf("%d writes, want %d", len(got), len(row.want))
			}
			var back [][]byte
			for i, w := range got {
				if w.Count != row.want[i] {
					t.Errorf("write %d carries %d packets, want %d", i, w.Count, row.want[i])
				}
				ps, err := unwrite(w)
				if err != nil {
					t.Fatal(err)
				}
				back = append(back, ps...)
			}
			for i := range in {
				if !bytes.Equal(in[i], back[i]) {
					t.Fatalf("packet %d:\n got %x\nwant %x", i, back[i], in[i])
				}
			}
		})
	}
}

// TestCoalescePairs joins two packets that would fit but for one thing.
func TestCoalescePairs(t *testing.T) {
	other := netip.MustParseAddr("10.1.0.9")
	for _, row := range []struct {
		name   string
		base   spec
		change func(first, second *spec)
		joined bool
	}{
		{"tcp4", tcp4, func(a, b *spec) {}, true},
		{"tcp6", tcp6, func(a, b *spec) {}, true},
		{"udp4", udp4, func(a, b *spec) {}, true},
		{"push on the last", tcp4, func(a, b *spec) { b.flags |= tcpPSH }, true},
		{"shorter last", tcp4, func(a, b *spec) { b.payload = b.payload[:10] }, true},
		{"DF, identification anything", tcp4, func(a, b *spec) { b.id = 4711 }, true},
		{"no options", tcp4, func(a, b *spec) { a.options, b.options = nil, nil }, true},
		{"push on the first", tcp4, func(a, b *spec) { a.flags |= tcpPSH }, false},
		{"longer last", tcp4, func(a, b *spec) { b.payload = pattern(101, 0) }, false},
		{"no DF, identification jumps", tcp4, func(a, b *spec) { a.df, b.df, b.id = false, false, 9 }, false},
		{"DF differs", tcp4, func(a, b *spec) { b.df = false }, false},
		{"gap", tcp4, func(a, b *spec) { b.seq++ }, false},
		{"repeated", tcp4, func(a, b *spec) { b.seq = a.seq }, false},
		{"other port", tcp4, func(a, b *spec) { b.sport++ }, false},
		{"other address", tcp4, func(a, b *spec) { b.src = other }, false},
		{"other ttl", tcp4, func(a, b *spec) { b.ttl-- }, false},
		{"other tos", tcp4, func(a, b *spec) { b.tos = 3 }, false},
		{"other acknowledgement", tcp4, func(a, b *spec) { b.ack++ }, false},
		{"other window", tcp4, func(a, b *spec) { b.window++ }, false},
		{"other timestamp", tcp4, func(a, b *spec) { b.options = append([]byte{1, 1, 8, 10, 0, 0, 0, 8}, 0, 0, 0, 7) }, false},
		{"options of another length", tcp4, func(a, b *spec) { b.options = []byte{1, 1, 1, 1} }, false},
		{"FIN", tcp4, func(a, b *spec) { b.flags |= tcpFIN }, false},
		{"SYN", tcp4, func(a, b *spec) { b.flags |= 2 }, false},
		{"RST", tcp4, func(a, b *spec) { b.flags |= 4 }, false},
		{"URG", tcp4, func(a, b *spec) { b.flags |= 0x20 }, false},
		{"URG both", tcp4, func(a, b *spec) { a.flags |= 0x20; b.flags |= 0x20 }, false},
		{"urgent pointer", tcp4, func(a, b *spec) { a.urgent, b.urgent = 1, 1 }, false},
		{"ECE both", tcp4, func(a, b *spec) { a.flags |= 0x40; b.flags |= 0x40 }, false},
		{"CWR", tcp4, func(a, b *spec) { a.flags |= tcpCWR }, false},
		{"no ACK", tcp4, func(a, b *spec) { a.flags, b.flags = 0, 0 }, false},
		{"no payload", tcp4, func(a, b *spec) { b.payload = nil }, false},
		{"ip options", tcp4, func(a, b *spec) { a.ipOpt, b.ipOpt = []byte{1, 1, 1, 0}, []byte{1, 1, 1, 0} }, false},
		{"fragments", tcp4, func(a, b *spec) { a.frag, b.frag = 0x2000, 0x2000 }, false},
		{"fragment offset", udp4, func(a, b *spec) { b.frag = 1 }, false},
		{"extension headers", tcp6, func(a, b *spec) {
			a.ext = []byte{60, 0, 1, 4, 0, 0, 0, 0}
			b.ext = a.ext
		}, false},
		{"flow label", tcp6, func(a, b *spec) { b.flow++ }, false},
		{"hop limit", tcp6, func(a, b *spec) { b.ttl++ }, false},
		{"traffic class", tcp6, func(a, b *spec) { b.tos = 1 }, false},
		{"udp no DF, identification jumps", udp4, func(a, b *spec) { b.id += 2 }, false},
		{"udp longer", udp6, func(a, b *spec) { b.payload = pattern(101, 0) }, false},
		{"udp and tcp", udp4, func(a, b *spec) { b.udp = false; b.flags = tcpACK }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			specs := stream(row.base, 2, 100)
			row.change(&specs[0], &specs[1])
			checkPair(t, built(specs), row.joined)
		})
	}
}

func TestCoalesceBadBytes(t *testing.T) {
	for _, row := range []struct {
		name   string
		base   spec
		change func(first, second []byte) []byte
	}{
		{"payload of the first", tcp4, func(a, b []byte) []byte { a[100]++; return b }},
		{"payload of the second", tcp4, func(a, b []byte) []byte { b[100]++; return b }},
		{"payload, IPv6", tcp6, func(a, b []byte) []byte { b[100]++; return b }},
		{"payload, UDP", udp4, func(a, b []byte) []byte { b[100]++; return b }},
		{"IPv4 checksum of the first", tcp4, func(a, b []byte) []byte { a[10]++; return b }},
		{"IPv4 checksum of the second", tcp4, func(a, b []byte) []byte { b[11]++; return b }},
		{"total length too big", tcp4, func(a, b []byte) []byte { return b[:len(b)-1] }},
		{"bytes behind the packet", tcp4, func(a, b []byte) []byte { return append(b, 0) }},
		{"UDP length", udp6, func(a, b []byte) []byte { b[45]--; return b }},
		{"UDP without checksum", udp4, func(a, b []byte) []byte { a[26], a[27], b[26], b[27] = 0, 0, 0, 0; return b }},
		{"reserved bit", tcp4, func(a, b []byte) []byte { b[32] |= 1; return b }},
		{"empty", tcp4, func(a, b []byte) []byte { return nil }},
	} {
		t.Run(row.name, func(t *testing.T) {
			ps := built(stream(row.base, 2, 100))
			ps[1] = row.change(ps[0], ps[1])
			checkPair(t, ps, false)
		})
	}
}

func checkPair(t *testing.T, ps [][]byte, joined bool) {
	t.Helper()
	c := Coalescer{TCP: true, UDP: true}
	before := []([]byte){bytes.Clone(ps[0]), bytes.Clone(ps[1])}
	got := c.Coalesce(packets(ps...))
	if (len(got) == 1) != joined {
		t.Fatalf("%d writes, joined should be %v", len(got), joined)
	}
	if !bytes.Equal(ps[0], before[0]) || !bytes.Equal(ps[1], before[1]) {
		t.Fatal("the batch was changed")
	}
	if joined {
		return
	}
	for i, w := range got {
		if w.GSO != GSONone || w.Count != 1 || !bytes.Equal(w.Vec[1], ps[i]) || !bytes.Equal(w.Vec[0], make([]byte, HeaderLen)) {
			t.Fatalf("write %d is not the packet as it was", i)
		}
	}
}

func TestCoalesceOff(t *testing.T) {
	ps := packets(append(built(stream(tcp4, 3, 100)), built(stream(udp4, 3, 100))...)...)
	for _, row := range []struct {
		tcp, udp bool
		want     int
	}{{false, false, 6}, {true, false, 4}, {false, true, 4}, {true, true, 2}} {
		c := Coalescer{TCP: row.tcp, UDP: row.udp}
		if got := len(c.Coalesce(ps)); got != row.want {
			t.Errorf("tcp %v udp %v: %d writes, want %d", row.tcp, row.udp, got, row.want)
		}
	}
}

func TestCoalesceInterleaved(t *testing.T) {
	var in [][]byte
	flows := [][][]byte{built(stream(tcp4, 10, 700)), built(stream(tcp6, 10, 700)), built(stream(udp4, 10, 700)), built(stream(udp6, 10, 700))}
	for i := range 10 {
		for _, f := range flows {
			in = append(in, f[i])
		}
	}
	c := Coalescer{TCP: true, UDP: true}
	got := c.Coalesce(packets(in...))
	if len(got) != 4 {
		t.Fatalf("%d writes, want one a flow", len(got))
	}
	w := got[2]
	i, seen := w.Head, 0
	for ; i >= 0; i = c.Next(i) {
		if i != 2+4*seen {
			t.Fatalf("packet %d of the run is number %d of the batch", seen, i)
		}
		seen++
	}
	if seen != w.Count {
		t.Fatalf("chain of %d, count %d", seen, w.Count)
	}
}

// TestCoalesceNothingOvertakes: a packet that cannot be joined ends the run of
// its flow, a fragment that of every flow.
func TestCoalesceNothingOvertakes(t *testing.T) {
	for name, s := range map[string]spec{
		"pure ACK": {sport: tcp4.sport, df: true, flags: tcpACK},
		"fragment": {sport: 9, udp: true, frag: 0x2000, payload: pattern(8, 0)},
		"no TCP":   {v6: true, ext: []byte{44, 0, 0, 0, 0, 0, 0, 0}, payload: pattern(8, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			f := built(stream(tcp4, 4, 500))
			c := Coalescer{TCP: true, UDP: true}
			got := c.Coalesce(packets(f[0], f[1], s.build(), f[2], f[3]))
			if len(got) != 3 || got[0].Count != 2 || got[1].Count != 1 || got[2].Count != 2 {
				t.Fatalf("%d writes", len(got))
			}
		})
	}
}

// TestCoalesceOracle feeds random batches and compares, flow by flow, what
// arrives with what was sent.
func TestCoalesceOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 11))
	c := Coalescer{TCP: true, UDP: true}
	joined := 0
	for range 300 {
		batch := randomBatch(r)
		var sent, got [][]byte
		for _, p := range batch {
			sent = append(sent, bytes.Clone(p.Data))
		}
		for _, w := range c.Coalesce(batch) {
			if w.Count > 1 {
				joined++
			}
			ps, err := unwrite(w)
			if err != nil {
				t.Fatal(err)
			}
			if len(ps) != w.Count {
				t.Fatalf("%d packets, count says %d", len(ps), w.Count)
			}
			got = append(got, ps...)
		}
		compareFlows(t, sent, got)
	}
	if joined < 300 {
		t.Fatalf("only %d runs joined: the batches test nothing", joined)
	}
}

func randomBatch(r *rand.Rand) []dataplane.Packet {
	bases := []spec{tcp4, tcp6, udp4, udp6, tcp4, udp6}
	for i := range bases {
		bases[i].sport = uint16(1000 + i)
	}
	var out []dataplane.Packet
	for len(out) < 60 {
		s := &bases[r.IntN(len(bases))]
		n := []int{1, 100, 100, 100, 1300, 1300, 0}[r.IntN(7)]
		for range 1 + r.IntN(6) {
			p := *s
			p.payload = pattern(n, r.IntN(256))
			switch r.IntN(12) {
			case 0:
				p.flags |= tcpPSH
			case 1:
				p.ttl++
			case 2:
				p.payload = p.payload[:n/2]
			}
			b := p.build()
			if r.IntN(15) == 0 {
				b[len(b)-1]++
			}
			out = append(out, dataplane.Packet{Data: b})
			s.seq += uint32(len(p.payload))
			s.id++
		}
	}
	return out
}

// compareFlows looks at source ports, the last byte of the address family, and
// the order within them.
func compareFlows(t *testing.T, sent, got [][]byte) {
	t.Helper()
	byFlow := func(ps [][]byte) map[[4]byte][][]byte {
		m := make(map[[4]byte][][]byte)
		for _, p := range ps {
			l, ok := parseLayout(p)
			if !ok {
				t.Fatalf("not a packet: %x", p)
			}
			k := [4]byte{p[0], l.proto, p[l.l4], p[l.l4+1]}
			m[k] = append(m[k], p)
		}
		return m
	}
	a, b := byFlow(sent), byFlow(got)
	if len(a) != len(b) {
		t.Fatalf("%d flows arrived, %d sent", len(b), len(a))
	}
	for k := range a {
		if len(a[k]) != len(b[k]) {
			t.Fatalf("flow %v: %d packets, want %d", k, len(b[k]), len(a[k]))
		}
		for i := range a[k] {
			if !bytes.Equal(a[k][i], b[k][i]) {
				t.Fatalf("flow %v packet %d:\n got %x\nwant %x", k, i, b[k][i], a[k][i])
			}
		}
	}
}

func FuzzCoalesce(f *testing.F) {
	for _, s := range []spec{tcp4, tcp6, udp4, udp6} {
		ps := built(stream(s, 2, 50))
		f.Add(ps[0], ps[1])
	}
	c := Coalescer{TCP: true, UDP: true}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		in := packets(a, b)
		n := 0
		for _, w := range c.Coalesce(in) {
			n += w.Count
			ps, err := unwrite(w)
			if err != nil || len(ps) != w.Count {
				t.Fatalf("%d packets of %d: %v", len(ps), w.Count, err)
			}
			for i, p := range ps {
				want := bytes.Clone([][]byte{a, b}[w.Head+i])
				if w.Count > 1 && a[0]>>4 == 4 && a[6]&0x40 != 0 {
					copy(want[4:6], p[4:6]) // DF: the identification is free
					copy(want[10:12], p[10:12])
				}
				if w.Count > 1 {
					// Checksums 0 and 0xffff are the same number.
					l, _ := parseLayout(p)
					at := l.l4 + l.checksumOffset()
					copy(want[at:at+2], p[at:at+2])
					copy(want[10:12], p[10:12])
					if l.v6 {
						copy(want[10:12], b[10:12])
					}
				}
				if !bytes.Equal(p, want) {
					t.Fatalf("\n got %x\nwant %x", p, want)
				}
			}
		}
		if n != 2 {
			t.Fatalf("%d packets of 2", n)
		}
	})
}

func TestCoalesceAllocs(t *testing.T) {
	batch := packets(append(built(stream(tcp4, 64, 1356)), built(stream(udp6, 64, 300))...)...)
	c := Coalescer{TCP: true, UDP: true}
	if n := testing.AllocsPerRun(100, func() { c.Coalesce(batch) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestCoalesceLongBatch(t *testing.T) {
	batch := packets(built(stream(udp4, MaxBatch+10, 20))...)
	c := Coalescer{UDP: true}
	n := 0
	for _, w := range c.Coalesce(batch) {
		n += w.Count
	}
	if n != MaxBatch {
		t.Fatalf("%d packets, want the first %d", n, MaxBatch)
	}
}

func BenchmarkCoalesce(b *testing.B) {
	batch := packets(built(stream(tcp4, 47, 1356))...)
	c := Coalescer{TCP: true}
	b.SetBytes(47 * 1408)
	for b.Loop() {
		c.Coalesce(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*47), "ns/packet")
}

package offload

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

func TestSplit(t *testing.T) {
	hop := []byte{0, 0, 5, 2, 0, 0, 1, 0} // hop-by-hop: router alert, padding
	for name, s := range map[string]spec{
		"tcp4":            {df: true, id: 0xfffe, ttl: 64, seq: 0xffffff00, ack: 77, flags: tcpACK | tcpPSH | tcpFIN, window: 501},
		"tcp4 options":    {ttl: 3, id: 9, seq: 1, flags: tcpACK, options: timestamps, tos: 2},
		"tcp4 ip options": {ttl: 3, seq: 1, flags: tcpACK | tcpPSH, ipOpt: []byte{1, 1, 1, 0}},
		"tcp4 cwr":        {ttl: 64, flags: tcpACK | tcpCWR | tcpPSH, urgent: 5},
		"tcp6":            {v6: true, ttl: 64, seq: 5, flags: tcpACK | tcpFIN, options: timestamps, flow: 9, tos: 0x1e},
		"tcp6 extension":  {v6: true, ttl: 64, flags: tcpACK, ext: hop},
		"udp4":            {udp: true, ttl: 64, id: 3},
		"udp6":            {udp: true, v6: true, ttl: 64},
	} {
		for _, gso := range []int{1, 3, 536, 1367, 1368, 9000, 65000} {
			for _, n := range []int{1, 2, 1368, 1369, 5000, 65000} {
				if n/gso > 3000 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d of %d", name, gso, n), func(t *testing.T) { testSplit(t, s, n, gso) })
			}
		}
	}
}

// testSplit builds each packet that should come out by itself.
func testSplit(t *testing.T, s spec, n, gso int) {
	s.payload, s.sport = pattern(n, 3), 4000
	h, p := super(s.build(), gso)
	h.HeaderLen = 1 // a hint that lies
	got, err := cut(h, p)
	if err != nil {
		t.Fatal(err)
	}
	if want := (n + gso - 1) / gso; len(got) != want {
		t.Fatalf("%d packets, want %d", len(got), want)
	}
	for i, q := range got {
		want := s
		off := i * gso
		want.payload = s.payload[off:min(off+gso, n)]
		want.id, want.seq = s.id+uint16(i), s.seq+uint32(off)
		if off+gso < n {
			want.flags &^= tcpFIN | tcpPSH
		}
		if i > 0 {
			want.flags &^= tcpCWR
		}
		if !bytes.Equal(q, want.build()) {
			t.Fatalf("packet %d:\n got %x\nwant %x", i, q[:60], want.build()[:60])
		}
		if !good(q) {
			t.Fatalf("packet %d: wrong checksum", i)
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	tcp := spec{ttl: 64, flags: tcpACK, payload: pattern(5000, 0)}
	for _, row := range []struct {
		name   string
		spec   spec
		change func(h *Header, p []byte) []byte
		want   error
	}{
		{"zero gso size", tcp, func(h *Header, p []byte) []byte { h.GSOSize = 0; return p }, ErrMalformed},
		{"no checksum asked for", tcp, func(h *Header, p []byte) []byte { h.Flags = 0; return p }, ErrMalformed},
		{"checksum start elsewhere", tcp, func(h *Header, p []byte) []byte { h.ChecksumStart = 24; return p }, ErrMalformed},
		{"checksum offset elsewhere", tcp, func(h *Header, p []byte) []byte { h.ChecksumOffset = 6; return p }, ErrMalformed},
		{"wrong family", tcp, func(h *Header, p []byte) []byte { h.GSOType = GSOTCP6; return p }, ErrUnsupported},
		{"wrong protocol", tcp, func(h *Header, p []byte) []byte { h.GSOType = GSOUDP; return p }, ErrUnsupported},
		{"UFO", tcp, func(h *Header, p []byte) []byte { h.GSOType = 3; return p }, ErrUnsupported},
		{"total length lies", tcp, func(h *Header, p []byte) []byte { p[3]++; return p }, ErrMalformed},
		{"truncated", tcp, func(h *Header, p []byte) []byte { return p[:len(p)-1] }, ErrMalformed},
		{"header cut off", tcp, func(h *Header, p []byte) []byte { return p[:30] }, ErrUnsupported},
		{"data offset too small", tcp, func(h *Header, p []byte) []byte { p[32] = 0x40; return p }, ErrUnsupported},
		{"data offset past the end", tcp, func(h *Header, p []byte) []byte { p[32] = 0xf0; return p[:50] }, ErrUnsupported},
		{"IHL too small", tcp, func(h *Header, p []byte) []byte { p[0] = 0x44; return p }, ErrUnsupported},
		{"fragment", tcp, func(h *Header, p []byte) []byte { p[6] |= 0x20; return p }, ErrUnsupported},
		{"version 5", tcp, func(h *Header, p []byte) []byte { p[0] = 0x55; return p }, ErrUnsupported},
		{"empty", tcp, func(h *Header, p []byte) []byte { return nil }, ErrUnsupported},
		{"no payload", spec{ttl: 64, flags: tcpACK}, func(h *Header, p []byte) []byte { return p }, ErrMalformed},
		{
			"IPv6 fragment header",
			spec{v6: true, flags: tcpACK, payload: pattern(3000, 0)},
			func(h *Header, p []byte) []byte { p[6] = 44; return p }, ErrUnsupported,
		},
		{
			"IPv6 chain past the end",
			spec{v6: true, flags: tcpACK, payload: pattern(3000, 0)},
			func(h *Header, p []byte) []byte { p[6], p[40], p[41] = 60, 60, 255; return p[:60] }, ErrUnsupported,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, p := super(row.spec.build(), 1000)
			got, err := cut(h, row.change(&h, p))
			if !errors.Is(err, row.want) || got != nil {
				t.Fatalf("%d packets, %v; want %v", len(got), err, row.want)
			}
		})
	}
}

func TestSplitSmallDestination(t *testing.T) {
	h, p := super(spec{flags: tcpACK, payload: pattern(3000, 0)}.build(), 1000)
	var s Splitter
	if err := s.Reset(h, p); err != nil {
		t.Fatal(err)
	}
	if s.Next(make([]byte, s.Size()-1)) != nil {
		t.Fatal("a packet larger than its destination")
	}
	n := 0
	for s.Size() > 0 {
		if s.Next(make([]byte, s.Size())) == nil {
			t.Fatal("no packet")
		}
		n++
	}
	if n != 3 || s.Next(make([]byte, 2000)) != nil {
		t.Fatalf("%d packets, want 3 and no more", n)
	}
}

func TestComplete(t *testing.T) {
	for name, s := range map[string]spec{
		"tcp4": {flags: tcpACK, payload: pattern(101, 0)},
		"udp4": {udp: true, payload: pattern(77, 0)},
		"tcp6": {v6: true, flags: tcpACK, payload: pattern(1300, 0)},
		"udp6": {v6: true, udp: true},
	} {
		t.Run(name, func(t *testing.T) {
			want := s.build()
			h, p := super(s.build(), 0)
			h.GSOType = GSONone
			if bytes.Equal(p, want) {
				t.Fatal("the checksum was complete already")
			}
			if err := Complete(h, p); err != nil || !bytes.Equal(p, want) {
				t.Fatalf("%v\n got %x\nwant %x", err, p, want)
			}
			h.ChecksumStart = uint16(len(p) - 1)
			if err := Complete(h, p); !errors.Is(err, ErrMalformed) {
				t.Fatalf("checksum past the end: %v", err)
			}
			if err := Complete(Header{}, p); err != nil || !bytes.Equal(p, want) {
				t.Fatal("a complete packet was changed")
			}
		})
	}
}

func TestHeader(t *testing.T) {
	want := Header{1, 4, 2, 3, 4, 5}
	b := make([]byte, HeaderLen)
	want.Put(b)
	if got, err := ParseHeader(b); err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := ParseHeader(b[:9]); err == nil {
		t.Fatal("a short header was taken")
	}
}

func FuzzSplit(f *testing.F) {
	for _, s := range []spec{{flags: tcpACK}, {v6: true, flags: tcpACK}, {udp: true}, {v6: true, udp: true}} {
		s.payload = pattern(300, 0)
		h, p := super(s.build(), 100)
		b := make([]byte, HeaderLen)
		h.Put(b)
		f.Add(append(b, p...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		p := bytes.Clone(b[HeaderLen:])
		if !h.Super() {
			_ = Complete(h, p)
			return
		}
		var s Splitter
		if s.Reset(h, p) != nil {
			return
		}
		bytesOut := 0
		for s.Size() > 0 {
			q := s.Next(make([]byte, s.Size()))
			l, ok := parseLayout(q)
			if !ok || !l.lengthIs(q, len(q)) || len(q)-l.hdr > int(h.GSOSize) {
				t.Fatalf("bad packet %x", q)
			}
			if !good(q) {
				t.Fatalf("bad checksum %x", q)
			}
			bytesOut += len(q) - l.hdr
		}
		if l, _ := parseLayout(p); bytesOut != len(p)-l.hdr {
			t.Fatalf("%d bytes of %d", bytesOut, len(p)-l.hdr)
		}
	})
}

func TestSplitAllocs(t *testing.T) {
	h, p := super(spec{flags: tcpACK, options: timestamps, payload: pattern(60000, 0)}.build(), 1356)
	var s Splitter
	arena := make([]byte, 80000)
	if n := testing.AllocsPerRun(100, func() { splitAll(&s, h, p, arena) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func splitAll(s *Splitter, h Header, p, arena []byte) {
	if s.Reset(h, p) != nil {
		return
	}
	for s.Size() > 0 {
		arena = arena[len(s.Next(arena)):]
	}
}

func BenchmarkSplit(b *testing.B) {
	h, p := super(spec{flags: tcpACK, options: timestamps, payload: pattern(63732, 0)}.build(), 1356)
	var s Splitter
	arena := make([]byte, 80000)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		splitAll(&s, h, p, arena)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*47), "ns/packet")
}

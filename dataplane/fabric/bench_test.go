package fabric

import (
	"fmt"
	"net/netip"
	"testing"

	"corax/dataplane"
)

var discard = dataplane.SenderFunc(func([]dataplane.Packet) {})

// hot is a way through the fabric that must not allocate.
type hot struct {
	name  string
	from  Origin
	vtep  netip.Addr
	build func(i int) []byte
}

func hotPaths() []hot {
	v4 := func(src, dst string) func(int) []byte {
		return func(int) []byte { return spec{src: src, dst: dst}.udp(make([]byte, 1300)).build() }
	}
	return []hot{
		{"vxlan-wg-v4", FromVXLAN, vtepA, v4("10.1.1.5", "10.2.0.5")},
		{"wg-vxlan-v4", FromWireGuard, netip.Addr{}, v4("10.2.0.5", "10.1.1.5")},
		{"tun-wg-v4", FromTUN, netip.Addr{}, v4("10.1.0.5", "10.2.0.5")},
		{"vxlan-wg-v6", FromVXLAN, vtepA, v4("fd00:1:0:1::5", "fd00:2::5")},
		{"vxlan-wg-v4-flows", FromVXLAN, vtepA, func(i int) []byte {
			return spec{src: "10.1.1.5", dst: fmt.Sprintf("10.2.%d.5", i%256)}.udp(make([]byte, 1300)).build()
		}},
		{"syn", FromTUN, netip.Addr{}, func(int) []byte {
			return spec{src: "10.1.0.5", dst: "10.2.0.5"}.tcp(0x02, []byte{2, 4, 5, 0xb4}, nil).build()
		}},
		{"fragmented", FromTUN, netip.Addr{}, func(int) []byte {
			return spec{src: "10.1.0.5", dst: "10.2.0.5"}.udp(make([]byte, 3000)).build()
		}},
		{"answered", FromTUN, netip.Addr{}, func(int) []byte {
			return spec{src: "10.1.0.5", dst: "10.9.0.5"}.udp(make([]byte, 100)).build()
		}},
		{"neighbour", FromVXLAN, vtepA, func(int) []byte {
			return spec{src: overlayA.String(), dst: overlaySelf.String()}.echo(128).build()
		}},
		{"dropped", FromTUN, netip.Addr{}, func(int) []byte {
			return spec{src: "172.16.0.1", dst: "10.2.0.5"}.udp(nil).build()
		}},
	}
}

// resetter gives the same batch again and again, although Send changes it.
type resetter struct{ batch, fresh []dataplane.Packet }

func (h hot) batch(n int) *resetter {
	r := &resetter{make([]dataplane.Packet, n), make([]dataplane.Packet, n)}
	for i := range n {
		b := h.build(i)
		r.fresh[i] = dataplane.Packet{Data: b, VTEP: h.vtep}
		r.batch[i] = dataplane.Packet{Data: make([]byte, len(b)), VTEP: h.vtep}
	}
	return r
}

// next restores the headers, all that Send may have changed.
func (r *resetter) next() []dataplane.Packet {
	for i := range r.batch {
		copy(r.batch[i].Data, r.fresh[i].Data[:min(64, len(r.fresh[i].Data))])
	}
	return r.batch
}

func hotFabric(t testing.TB) *Fabric {
	f := New(Config{})
	if err := f.Apply(gatewayConfig(), Outputs{discard, discard, discard, discard}); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNoAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("sync.Pool allocates under the race detector")
	}
	for _, h := range hotPaths() {
		t.Run(h.name, func(t *testing.T) {
			f := hotFabric(t)
			r := h.batch(64)
			in := f.From(h.from)
			in.Send(r.next())
			if n := testing.AllocsPerRun(200, func() { in.Send(r.next()) }); n != 0 {
				t.Errorf("%v allocations a batch", n)
			}
		})
	}
}

func BenchmarkForward(b *testing.B) {
	for _, h := range hotPaths() {
		for _, n := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/batch=%d", h.name, n), func(b *testing.B) {
				f := hotFabric(b)
				r := h.batch(n)
				in := f.From(h.from)
				bytes := 0
				for _, p := range r.fresh {
					bytes += len(p.Data)
				}
				b.SetBytes(int64(bytes))
				b.ReportAllocs()
				for b.Loop() {
					in.Send(r.next())
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
			})
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var cfg dataplane.Config
			for i := range n {
				cfg.Routes = append(cfg.Routes, dataplane.Route{
					Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
					Via:    dataplane.ViaWireGuard,
				})
			}
			f := New(Config{})
			if err := f.Apply(cfg, Outputs{}); err != nil {
				b.Fatal(err)
			}
			a := netip.MustParseAddr("10.0.5.9")
			for b.Loop() {
				f.Lookup(a)
			}
		})
	}
}

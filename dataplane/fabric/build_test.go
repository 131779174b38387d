package fabric

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

// spec describes a packet; build makes it. The checksums come from naiveSum,
// which shares nothing with the code under test.
type spec struct {
	src, dst string
	ttl      uint8 // zero means 64
	tos      uint8
	proto    uint8
	id       uint16
	frag     uint16 // IPv4 flags and fragment offset
	opts     []byte // IPv4 options, a multiple of 4 bytes
	ext      []byte // IPv6 extension headers; the first is of type extType
	extType  uint8
	payload  []byte
}

func (p spec) build() []byte {
	src, dst := netip.MustParseAddr(p.src), netip.MustParseAddr(p.dst)
	if p.ttl == 0 {
		p.ttl = 64
	}
	if src.Is4() {
		b := make([]byte, 20, 20+len(p.opts)+len(p.payload))
		b = append(append(b, p.opts...), p.payload...)
		n := 20 + len(p.opts)
		b[0], b[1] = 0x40|byte(n/4), p.tos
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], p.id)
		binary.BigEndian.PutUint16(b[6:], p.frag)
		b[8], b[9] = p.ttl, p.proto
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^naiveSum(b[:n]))
		return b
	}
	b := make([]byte, 40, 40+len(p.ext)+len(p.payload))
	b = append(append(b, p.ext...), p.payload...)
	b[0], b[1] = 0x60|p.tos>>4, p.tos<<4
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	b[6], b[7] = p.proto, p.ttl
	if len(p.ext) > 0 {
		b[6] = p.extType
	}
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return b
}

// tcp sets a TCP segment as payload.
func (p spec) tcp(flags byte, opts, data []byte) spec {
	for len(opts)%4 != 0 {
		opts = append(opts, 0)
	}
	seg := make([]byte, 20, 20+len(opts)+len(data))
	copy(seg, []byte{0x30, 0x39, 0x00, 0x50, 1, 2, 3, 4, 0, 0, 0, 0, byte(5+len(opts)/4) << 4, flags, 0xff, 0xff})
	seg = append(append(seg, opts...), data...)
	return p.upper(protoTCP, 16, seg)
}

func (p spec) udp(data []byte) spec {
	seg := append([]byte{0x30, 0x39, 0x00, 0x35, 0, 0, 0, 0}, data...)
	binary.BigEndian.PutUint16(seg[4:], uint16(len(seg)))
	return p.upper(17, 6, seg)
}

func (p spec) echo(typ byte) spec {
	seg := append([]byte{typ, 0, 0, 0, 0, 1, 0, 1}, "corax echo"...)
	if netip.MustParseAddr(p.src).Is4() {
		binary.BigEndian.PutUint16(seg[2:], ^naiveSum(seg))
		p.proto, p.payload = protoICMP, seg
		return p
	}
	return p.upper(protoICMP6, 2, seg)
}

// upper sets the checksum at seg[at:] over the pseudo-header.
func (p spec) upper(proto byte, at int, seg []byte) spec {
	p.proto, p.payload = proto, seg
	src, dst := netip.MustParseAddr(p.src), netip.MustParseAddr(p.dst)
	binary.BigEndian.PutUint16(seg[at:], ^naiveSum(append(pseudo(src, dst, proto, len(seg)), seg...)))
	return p
}

func pseudo(src, dst netip.Addr, proto byte, n int) []byte {
	b := slices.Concat(src.AsSlice(), dst.AsSlice())
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return append(b, 0, 0, 0, proto)
}

// naiveSum is RFC 1071 word by word.
func naiveSum(b []byte) uint16 {
	var acc uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		acc += w
		if acc > 0xffff {
			acc -= 0xffff
		}
	}
	return uint16(acc)
}

// checksumsValid judges a packet without extension headers: IPv4 header, and
// TCP, UDP, ICMP when it is whole.
func checksumsValid(b []byte) bool {
	proto, body := byte(0), []byte(nil)
	var src, dst netip.Addr
	if b[0]>>4 == 4 {
		n := int(b[0]&15) * 4
		if naiveSum(b[:n]) != 0xffff || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			return false
		}
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return true
		}
		proto, body = b[9], b[n:]
		src, _ = netip.AddrFromSlice(b[12:16])
		dst, _ = netip.AddrFromSlice(b[16:20])
	} else {
		if int(binary.BigEndian.Uint16(b[4:]))+40 != len(b) {
			return false
		}
		proto, body = b[6], b[40:]
		src, _ = netip.AddrFromSlice(b[8:24])
		dst, _ = netip.AddrFromSlice(b[24:40])
	}
	switch proto {
	case protoICMP:
		return naiveSum(body) == 0xffff
	case protoTCP, 17, protoICMP6:
		return naiveSum(append(pseudo(src, dst, proto, len(body)), body...)) == 0xffff
	}
	return true
}

// recorder is an output that keeps copies.
type recorder struct {
	mu      sync.Mutex
	batches int
	got     []dataplane.Packet
}

func (r *recorder) Send(batch []dataplane.Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches++
	for _, p := range batch {
		r.got = append(r.got, dataplane.Packet{Data: slices.Clone(p.Data), VTEP: p.VTEP})
		clear(p.Data) // the callee may change the bytes: nobody must rely on them
	}
}

// The world of the tests: a gateway node with a TUN, a plain node of its
// domain whose key is known, one whose key is not, and a peer.
var (
	nodeIP      = netip.MustParseAddr("192.168.1.1")
	vtepA       = netip.MustParseAddr("192.168.1.2") // owns 10.1.1.0/24
	vtepB       = netip.MustParseAddr("192.168.1.3") // overlayB, owns 10.1.2.0/24
	overlaySelf = overlayOf(1)
	overlayA    = overlayOf(2) // of vtepA, but nobody has said so
	overlayB    = overlayOf(3)
	overlayPeer = overlayOf(4)
)

func overlayOf(n byte) netip.Addr { return key.Public{n}.Overlay() }

func gatewayConfig() dataplane.Config {
	route := func(p string, via dataplane.Via, vtep netip.Addr, mtu int) dataplane.Route {
		return dataplane.Route{Prefix: netip.MustParsePrefix(p), Via: via, VTEP: vtep, MTU: mtu}
	}
	return dataplane.Config{
		Self: dataplane.Self{
			NodeIP: nodeIP, Overlay: overlaySelf, MTU: 1408,
			Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		},
		VTEPs: []dataplane.VTEP{{Addr: vtepA}, {Addr: vtepB, Overlay: overlayB}},
		Routes: []dataplane.Route{
			route("10.1.0.0/24", dataplane.ViaTUN, netip.Addr{}, 0),
			route("10.1.1.0/24", dataplane.ViaVXLAN, vtepA, 1400),
			route("10.1.2.0/24", dataplane.ViaVXLAN, vtepB, 1230),
			route("10.2.0.0/16", dataplane.ViaWireGuard, netip.Addr{}, 1360),
			route("10.3.0.0/16", dataplane.ViaNone, netip.Addr{}, 0),
			route("fd00:1::/64", dataplane.ViaTUN, netip.Addr{}, 0),
			route("fd00:1:0:1::/64", dataplane.ViaVXLAN, vtepA, 1400),
			route("fd00:1:0:2::/64", dataplane.ViaVXLAN, vtepB, 1230),
			route("fd00:2::/48", dataplane.ViaWireGuard, netip.Addr{}, 1360),
			{Prefix: netip.PrefixFrom(overlayPeer, 128), Via: dataplane.ViaWireGuard, MTU: 1360},
			{Prefix: netip.MustParsePrefix("10.4.0.0/16"), Via: dataplane.ViaWireGuard, MTU: 1360, TCPMTU: 1200},
		},
	}
}

type world struct {
	*Fabric
	out [origins]*recorder
	now time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: time.Unix(1_700_000_000, 0)}
	w.Fabric = New(Config{Now: func() time.Time { return w.now }})
	w.apply(t, gatewayConfig())
	return w
}

func (w *world) apply(t testing.TB, cfg dataplane.Config) {
	t.Helper()
	for o := range w.out {
		w.out[o] = new(recorder)
	}
	if err := w.Apply(cfg, Outputs{w.out[FromWireGuard], w.out[FromVXLAN], w.out[FromTUN], w.out[FromNetstack]}); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

// send gives one packet to the fabric and returns everything that came out of
// each way since the last call.
func (w *world) send(o Origin, vtep netip.Addr, b []byte) (out [origins][]dataplane.Packet) {
	w.From(o).Send([]dataplane.Packet{{Data: b, VTEP: vtep}})
	for i, r := range w.out {
		out[i], r.got = r.got, nil
	}
	return out
}

// count returns a counter by "name reason".
func (w *world) count(t testing.TB, name, reason string) uint64 {
	t.Helper()
	for _, c := range w.Counters() {
		if c.Name == name && c.Reason == reason {
			return c.Value
		}
	}
	t.Fatalf("no counter %s %q", name, reason)
	return 0
}

// tcpValid checks the checksum of the TCP segment at b[at:].
func tcpValid(b []byte, at int) bool {
	var h header
	drop := h.parse(b)
	return drop == none &&
		naiveSum(append(pseudo(h.src(), h.dst(), protoTCP, len(b)-at), b[at:]...)) == 0xffff
}

// batchOf makes n packets, each with a copy of b.
func batchOf(n int, b []byte) []dataplane.Packet {
	batch := make([]dataplane.Packet, n)
	for i := range batch {
		batch[i].Data = slices.Clone(b)
	}
	return batch
}

package stun

import (
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	pion "github.com/pion/stun/v3"
)

// simNAT is a NAT or firewall in a dozen lines: just what a Discovery can tell.
type simNAT struct {
	mapping   Mapping // MappingNone: a firewall only
	filtering Filtering
	preserve  bool // keep the port
	ports     func(n int) uint16
	hairpin   bool
	lifetime  time.Duration // zero: for ever
	wan       netip.Addr

	given   int
	entries []*simEntry
}

type simEntry struct {
	in, key, out netip.AddrPort
	sent         []netip.AddrPort
	last         time.Time
}

func (n *simNAT) alive(e *simEntry, now time.Time) bool {
	return n.lifetime == 0 || now.Sub(e.last) < n.lifetime
}

// outward returns what a packet's source becomes.
func (n *simNAT) outward(src, dst netip.AddrPort, now time.Time) netip.AddrPort {
	var key netip.AddrPort
	switch n.mapping {
	case MappingAddressDependent:
		key = netip.AddrPortFrom(dst.Addr(), 0)
	case MappingAddressAndPortDependent:
		key = dst
	}
	n.entries = slices.DeleteFunc(n.entries, func(e *simEntry) bool { return !n.alive(e, now) })
	i := slices.IndexFunc(n.entries, func(e *simEntry) bool { return e.in == src && e.key == key })
	if i < 0 {
		out := src
		if n.mapping != MappingNone {
			port := src.Port()
			if !n.preserve {
				port = n.ports(n.given)
				n.given++
			}
			out = netip.AddrPortFrom(n.wan, port)
		}
		i, n.entries = len(n.entries), append(n.entries, &simEntry{in: src, key: key, out: out})
	}
	e := n.entries[i]
	e.last, e.sent = now, append(e.sent, dst)
	return e.out
}

// inward returns where a packet from outside goes.
func (n *simNAT) inward(src, dst netip.AddrPort, now time.Time) (netip.AddrPort, bool) {
	for _, e := range n.entries {
		if e.out != dst || !n.alive(e, now) {
			continue
		}
		for _, s := range e.sent {
			if n.filtering == FilteringEndpointIndependent || s == src ||
				n.filtering == FilteringAddressDependent && s.Addr() == src.Addr() {
				e.last = now
				return e.in, true
			}
		}
	}
	return netip.AddrPort{}, false
}

// simServer is a STUN server written with pion.
type simServer struct {
	addr, other  netip.AddrPort // other zero: not RFC 5780
	dead         bool
	refuses      bool // CHANGE-REQUEST gets error 420
	ignores      bool // CHANGE-REQUEST is not looked at
	responsePort bool
	claims       netip.AddrPort // a false OTHER-ADDRESS
}

func (s *simServer) answer(t testing.TB, p simPacket) (out simPacket, ok bool) {
	var m pion.Message
	if err := pion.Decode(p.data, &m); err != nil || m.Type != pion.BindingRequest || s.dead {
		return out, false
	}
	out = simPacket{src: p.dst, dst: p.src}
	res := &pion.Message{TransactionID: m.TransactionID, Type: pion.BindingSuccess}
	res.WriteHeader()
	if v, err := m.Get(pion.AttrChangeRequest); err == nil && !s.ignores {
		if s.refuses || !s.other.IsValid() {
			must(t, pion.CodeUnknownAttribute.AddTo(res), pion.NewType(pion.MethodBinding, pion.ClassErrorResponse).AddTo(res))
			out.data = res.Raw
			return out, true
		}
		if v[3]&4 != 0 {
			out.src = netip.AddrPortFrom(s.swap(p.dst).Addr(), out.src.Port())
		}
		if v[3]&2 != 0 {
			out.src = netip.AddrPortFrom(out.src.Addr(), s.swap(p.dst).Port())
		}
	}
	if v, err := m.Get(pion.AttrResponsePort); err == nil && s.responsePort {
		out.dst = netip.AddrPortFrom(p.src.Addr(), uint16(v[0])<<8|uint16(v[1]))
	}
	must(t, (&pion.XORMappedAddress{IP: p.src.Addr().AsSlice(), Port: int(p.src.Port())}).AddTo(res))
	if o := s.swap(p.dst); s.claims.IsValid() || s.other.IsValid() {
		if s.claims.IsValid() {
			o = s.claims
		}
		must(t, (&pion.OtherAddress{IP: net.IP(o.Addr().AsSlice()), Port: int(o.Port())}).AddTo(res))
	}
	out.data = res.Raw
	return out, true
}

// swap returns the address that differs from a in both parts.
func (s *simServer) swap(a netip.AddrPort) netip.AddrPort {
	ip, port := s.other.Addr(), s.other.Port()
	if a.Addr() == ip {
		ip = s.addr.Addr()
	}
	if a.Port() == port {
		port = s.addr.Port()
	}
	return netip.AddrPortFrom(ip, port)
}

func (s *simServer) at(a netip.AddrPort) bool {
	if !s.other.IsValid() {
		return a == s.addr
	}
	return (a.Addr() == s.addr.Addr() || a.Addr() == s.other.Addr()) && (a.Port() == s.addr.Port() || a.Port() == s.other.Port())
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

type simPacket struct {
	at       time.Time
	src, dst netip.AddrPort
	data     []byte
}

// sim is one host behind one NAT, and the servers.
type sim struct {
	t       testing.TB
	nat     simNAT
	servers []*simServer
	drop    func(n int, p simPacket) bool // nil: nothing is lost
	forge   func(p simPacket) []simPacket // packets that come from outside when p is sent

	tunnel, extra netip.AddrPort
	now           time.Time
	queue         []simPacket
	sent          []simPacket // by the host
}

const simDelay = 10 * time.Millisecond // one way

func newSim(t testing.TB, n simNAT, servers ...*simServer) *sim {
	if !n.wan.IsValid() {
		n.wan = netip.MustParseAddr("198.51.100.7")
	}
	return &sim{
		t: t, nat: n, servers: servers, now: testStart,
		tunnel: netip.MustParseAddrPort("10.0.0.2:4500"), extra: netip.MustParseAddrPort("10.0.0.2:51000"),
	}
}

// run drives a Discovery until it is done, at most for the time given.
func (s *sim) run(cfg Config, most time.Duration) *Discovery {
	s.t.Helper()
	if cfg.Servers == nil {
		for _, v := range s.servers {
			cfg.Servers = append(cfg.Servers, v.addr)
		}
	}
	if cfg.Local == nil {
		cfg.Local = []netip.AddrPort{s.tunnel}
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.NewChaCha8([32]byte{1})
	}
	d, end := NewDiscovery(cfg), s.now.Add(most)
	s.do(d.Step(s.now, Tick{}))
	for !d.Done() {
		next := d.Deadline()
		if len(s.queue) > 0 && s.queue[0].at.Before(next) {
			p := s.queue[0]
			s.queue, s.now = s.queue[1:], p.at
			s.arrive(d, p)
			continue
		}
		if next.IsZero() || next.After(end) {
			break
		}
		if next.Before(s.now) {
			s.t.Fatalf("deadline %v lies %v in the past", next, s.now.Sub(next))
		}
		s.now = next
		s.do(d.Step(s.now, Tick{}))
	}
	return d
}

func (s *sim) do(actions []Action) {
	for _, a := range actions {
		send := a.(Send)
		p := simPacket{at: s.now, src: s.tunnel, dst: send.To, data: send.Data}
		if send.FromOther {
			p.src = s.extra
		}
		if p.dst.Addr().Is6() {
			p.src = netip.AddrPortFrom(addr6.Addr(), p.src.Port())
		}
		s.sent = append(s.sent, p)
		if s.drop != nil && s.drop(len(s.sent), p) {
			continue
		}
		if p.dst.Addr().Is4() {
			p.src = s.nat.outward(p.src, p.dst, s.now)
		}
		if s.forge != nil {
			for _, f := range s.forge(p) {
				s.post(f, simDelay/2)
			}
		}
		s.post(p, simDelay)
	}
}

func (s *sim) post(p simPacket, after time.Duration) {
	p.at = s.now.Add(after)
	i, _ := slices.BinarySearchFunc(s.queue, p, func(a, b simPacket) int {
		if a.at.After(b.at) {
			return 1
		}
		return -1
	})
	s.queue = slices.Insert(s.queue, i, p)
}

func (s *sim) arrive(d *Discovery, p simPacket) {
	for _, v := range s.servers {
		if v.at(p.dst) {
			if out, ok := v.answer(s.t, p); ok {
				s.post(out, simDelay)
			}
			return
		}
	}
	to := p.dst
	if p.dst.Addr().Is4() {
		if s.nat.mapping != MappingNone && p.src.Addr() == s.nat.wan && !s.nat.hairpin {
			return
		}
		var ok bool
		if to, ok = s.nat.inward(p.src, p.dst, s.now); !ok {
			return
		}
	}
	m, err := Parse(p.data)
	if err != nil {
		s.t.Fatal(err)
	}
	s.do(d.Step(s.now, ResponseIn{Message: m, From: p.src, OnOther: to.Port() == s.extra.Port()}))
}

// random and counting are ways to give out ports.
func random(seed uint64) func(int) uint16 {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(int) uint16 { return uint16(1024 + r.IntN(64512)) }
}

func counting(first, step int) func(int) uint16 {
	return func(n int) uint16 { return uint16(first + n*step) }
}

var _ io.Reader = (*rand.ChaCha8)(nil) // what Config.Rand may be in tests

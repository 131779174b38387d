package natlab_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"corax/nat/natlab"
)

// world is a WAN with two echo servers of two ports each, that say in their
// answer what source they saw.
type world struct {
	lab     *natlab.Lab
	wan     *natlab.Network
	servers [2]*natlab.Host
	socks   map[netip.AddrPort]*natlab.Socket
}

var echoAddrs = [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")}

const echoPort, echoAltPort = 3478, 3479

func newWorld(seed uint64) *world {
	w := &world{lab: natlab.New(seed), socks: make(map[netip.AddrPort]*natlab.Socket)}
	w.wan = w.lab.Network(natlab.NetworkConfig{Name: "wan", Hops: 5, Link: natlab.Link{Latency: 10 * time.Millisecond}})
	for i, a := range echoAddrs {
		h := w.lab.Host("server" + string(rune('1'+i)))
		h.Attach(w.wan, natlab.Link{}, netip.PrefixFrom(a, 32))
		w.servers[i] = h
		for _, port := range []uint16{echoPort, echoAltPort} {
			var s *natlab.Socket
			s = h.Listen(port, func(_ time.Time, d natlab.Datagram) { _ = s.Send(d.From, appendAddr(nil, d.From), 0, false) })
			w.socks[netip.AddrPortFrom(a, port)] = s
		}
	}
	return w
}

func appendAddr(b []byte, a netip.AddrPort) []byte {
	b = append(b, a.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

func parseAddr(b []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(b[:len(b)-2])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[len(b)-2:]))
}

// inside is a host behind a NAT, with one socket and what came to it.
type inside struct {
	w      *world
	router *natlab.Router
	lan    *natlab.Network
	host   *natlab.Host
	sock   *natlab.Socket
	got    []natlab.Datagram
}

func (w *world) behind(nat natlab.NAT) *inside {
	in := &inside{w: w}
	in.lan = w.lab.Network(natlab.NetworkConfig{Name: "lan"})
	in.router = w.lab.Router(natlab.RouterConfig{
		Name: "nat", Inside: in.lan, Outside: w.wan, NAT: &nat,
		Inner: prefixes("192.168.1.1/24"), Outer: prefixes("203.0.113.10/32"),
	})
	in.host = w.lab.Host("inside")
	in.host.Attach(in.lan, natlab.Link{}, prefixes("192.168.1.2/24")...)
	in.sock = in.host.Listen(4500, func(_ time.Time, d natlab.Datagram) { in.got = append(in.got, d) })
	return in
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range s {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// ask returns the source that a server saw.
func (in *inside) ask(server int, port uint16) netip.AddrPort {
	in.got = nil
	_ = in.sock.Send(netip.AddrPortFrom(echoAddrs[server], port), nil, 0, false)
	in.w.lab.Run(100 * time.Millisecond)
	for _, d := range in.got {
		if len(d.Data) == 6 {
			return parseAddr(d.Data)
		}
	}
	return netip.AddrPort{}
}

// reaches says whether a packet from a server's port gets in.
func (in *inside) reaches(to netip.AddrPort, server int, port uint16) bool {
	in.got = nil
	_ = in.w.socks[netip.AddrPortFrom(echoAddrs[server], port)].Send(to, []byte("unasked"), 0, false)
	in.w.lab.Run(100 * time.Millisecond)
	return len(in.got) == 1
}

// classified is what a probe with two servers sees, in RFC 4787's words.
type classified struct {
	mapping, filtering natlab.Behaviour
	preserve           bool
}

// classify is the procedure of RFC 5780, with servers that help each other.
func classify(nat func() natlab.NAT) classified {
	var c classified
	in := newWorld(7).behind(nat())
	first, other, port := in.ask(0, echoPort), in.ask(1, echoPort), in.ask(0, echoAltPort)
	switch {
	case first == other && first == port:
		c.mapping = natlab.EndpointIndependent
	case first == port:
		c.mapping = natlab.AddressDependent
	default:
		c.mapping = natlab.AddressAndPortDependent
	}
	c.preserve = first.Port() == 4500

	in = newWorld(8).behind(nat())
	first = in.ask(0, echoPort)
	switch {
	case in.reaches(first, 1, echoPort):
		c.filtering = natlab.EndpointIndependent
	case in.reaches(first, 0, echoAltPort):
		c.filtering = natlab.AddressDependent
	default:
		c.filtering = natlab.AddressAndPortDependent
	}
	return c
}

func TestClassify(t *testing.T) {
	const eim, adm, apdm = natlab.EndpointIndependent, natlab.AddressDependent, natlab.AddressAndPortDependent
	for _, tt := range []struct {
		name string
		nat  func() natlab.NAT
		want classified
	}{
		{"full cone", natlab.FullCone, classified{eim, eim, true}},
		{"address restricted", natlab.AddressRestricted, classified{eim, adm, true}},
		{"port restricted", natlab.PortRestricted, classified{eim, apdm, true}},
		{"masquerade, INPUT dropped", func() natlab.NAT { return natlab.Masquerade(false) }, classified{eim, apdm, true}},
		{"masquerade, INPUT open", func() natlab.NAT { return natlab.Masquerade(true) }, classified{eim, apdm, true}},
		{"sequential", func() natlab.NAT { return natlab.SymmetricSequential(1) }, classified{apdm, apdm, false}},
		{"random", natlab.SymmetricRandom, classified{apdm, apdm, false}},
		{"address dependent mapping", func() natlab.NAT { return natlab.NAT{Mapping: adm, Filtering: adm, Ports: natlab.Random} }, classified{adm, adm, false}},
		{"symmetric, open filter", func() natlab.NAT { return natlab.NAT{Mapping: apdm, Filtering: eim, Ports: natlab.Random} }, classified{apdm, eim, false}},
		{"endpoint independent, random ports", func() natlab.NAT { return natlab.NAT{Mapping: eim, Filtering: apdm, Ports: natlab.Random} }, classified{eim, apdm, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := classify(tt.nat); got != tt.want {
				t.Errorf("classified as %+v, want %+v", got, tt.want)
			}
		})
	}
}

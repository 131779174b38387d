package natlab

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// packet is a UDP datagram on its way.
type packet struct {
	src, dst netip.AddrPort
	ttl      int
	df       bool
	data     []byte
	origin   *Socket // who hears of "packet too big"
}

// size is the length of the IP packet.
func (p *packet) size() int {
	if p.dst.Addr().Is6() {
		return 40 + 8 + len(p.data)
	}
	return 20 + 8 + len(p.data)
}

func (p *packet) String() string {
	return fmt.Sprintf("%s > %s ttl %d %dB", p.src, p.dst, p.ttl, len(p.data))
}

// Host is a machine with UDP sockets. Make it with [Lab.Host].
type Host struct {
	lab     *Lab
	name    string
	ifs     []*Interface
	sockets map[uint16]*Socket
	streams map[uint16]func(*Stream)
	conns   []*Stream
	down    bool
	sent    int
}

// Datagram is what a socket received.
type Datagram struct {
	From, To netip.AddrPort // To: the own address that it came to
	Data     []byte         // the receiver's
}

// Socket is a UDP socket for both families on all addresses of a host, those
// to come included. Make it with [Host.Listen].
type Socket struct {
	host   *Host
	port   uint16
	recv   func(now time.Time, d Datagram)
	tooBig func(now time.Time, to netip.AddrPort, mtu int)
}

// Host adds a host that is not attached to anything yet.
func (l *Lab) Host(name string) *Host {
	return &Host{lab: l, name: name, sockets: make(map[uint16]*Socket), streams: make(map[uint16]func(*Stream))}
}

// Attach gives the host an interface on a network, with addresses and their
// prefix lengths. What lies in none of the host's prefixes goes out of the
// first interface with an address of the family.
func (h *Host) Attach(n *Network, link Link, prefixes ...netip.Prefix) *Interface {
	i := n.attach(h.name, h, link, prefixes)
	h.ifs = append(h.ifs, i)
	return i
}

// Detach takes an interface of the host away, with its addresses.
func (h *Host) Detach(i *Interface) {
	i.setAddrs(nil)
	h.ifs = slices.DeleteFunc(h.ifs, func(have *Interface) bool { return have == i })
}

// SetAddrs replaces the addresses of one of the host's interfaces.
func (h *Host) SetAddrs(i *Interface, prefixes ...netip.Prefix) { i.setAddrs(prefixes) }

// Addrs returns the host's addresses with their prefix lengths.
func (h *Host) Addrs() []netip.Prefix {
	var out []netip.Prefix
	for _, i := range h.ifs {
		out = append(out, i.prefixes...)
	}
	return out
}

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// SetDown kills the host without a farewell, or starts it again: while it is
// down it sends and receives nothing.
func (h *Host) SetDown(down bool) { h.down = down }

// Sent returns how many UDP datagrams the host has sent.
func (h *Host) Sent() int { return h.sent }

// Listen opens a UDP socket and calls recv with each datagram. Port 0 takes a
// free one from 32768 up. A port that is open already is taken over.
func (h *Host) Listen(port uint16, recv func(now time.Time, d Datagram)) *Socket {
	for port == 0 || (port >= 32768 && h.sockets[port] != nil) {
		port = uint16(32768 + h.lab.rand.IntN(28232))
	}
	s := &Socket{host: h, port: port, recv: recv}
	h.sockets[port] = s
	return s
}

// OnTooBig makes the socket call fn for an ICMP "packet too big" that came for
// something it sent; mtu is that of the link, in bytes of an IP packet.
func (s *Socket) OnTooBig(fn func(now time.Time, to netip.AddrPort, mtu int)) { s.tooBig = fn }

// Port returns the socket's local port.
func (s *Socket) Port() uint16 { return s.port }

// Close closes the socket.
func (s *Socket) Close() {
	if s.host.sockets[s.port] == s {
		delete(s.host.sockets, s.port)
	}
}

// Send sends a datagram. TTL 0 means 64. With df it is never fragmented: it
// fails with *[TooBigError] when the own link is too small, and elsewhere ICMP
// comes back, unless the link is silent. The data is copied. Where there is no
// address of the family the datagram is dropped, like any other without route.
func (s *Socket) Send(to netip.AddrPort, data []byte, ttl int, df bool) error {
	h := s.host
	p := &packet{dst: to, ttl: ttl, df: df, data: slices.Clone(data), origin: s}
	if ttl == 0 {
		p.ttl = 64
	}
	if h.down || h.sockets[s.port] != s {
		h.lab.drop(h.name, "down", p)
		return nil
	}
	h.sent++
	out := h.route(to.Addr())
	if out == nil {
		h.lab.drop(h.name, "no route", p)
		return nil
	}
	src, _ := out.addr(to.Addr().Is6())
	p.src = netip.AddrPortFrom(src, s.port)
	if h.lab.trace != nil {
		h.lab.Tracef("%s: send %s", h.name, p)
	}
	if in := h.own(to.Addr()); in != nil {
		h.lab.queue.push(event{at: h.lab.now, to: in, packet: p})
		return nil
	}
	return out.net.transmit(out, p)
}

// route returns the interface that leads to dst.
func (h *Host) route(dst netip.Addr) *Interface {
	var out *Interface
	for _, i := range h.ifs {
		if _, ok := i.addr(dst.Is6()); !ok {
			continue
		}
		if out == nil {
			out = i
		}
		for _, p := range i.prefixes {
			if p.Contains(dst) {
				return i
			}
		}
	}
	return out
}

func (h *Host) own(a netip.Addr) *Interface {
	for _, i := range h.ifs {
		for _, p := range i.prefixes {
			if p.Addr() == a {
				return i
			}
		}
	}
	return nil
}

func (h *Host) receive(in *Interface, p *packet) {
	s := h.sockets[p.dst.Port()]
	switch {
	case h.down:
		h.lab.drop(h.name, "down", p)
	case !slices.ContainsFunc(in.prefixes, func(own netip.Prefix) bool { return own.Addr() == p.dst.Addr() }):
		h.lab.drop(h.name, "not mine", p)
	case s == nil:
		h.lab.drop(h.name, "no socket", p)
	default:
		if h.lab.trace != nil {
			h.lab.Tracef("%s: recv %s", h.name, p)
		}
		s.recv(h.lab.now, Datagram{From: p.src, To: p.dst, Data: p.data})
	}
}

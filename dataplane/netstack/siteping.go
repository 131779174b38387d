package netstack

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
)

const (
	// maxPingers bounds the ping connections of a [Site], and maxReplies what waits in
	// one of them until it is read.
	maxPingers = 256
	maxReplies = 64
	// seqLen is what a message of a ping connection has before the payload, in bytes.
	seqLen = 2
)

// pingEnds names a ping connection: the identifier is that of its requests.
type pingEnds struct {
	from, to netip.Addr
	id       uint16
}

// pingers are the ping connections of a Site.
type pingers struct {
	open    atomic.Int32 // len(m), to pass the lock when there are none
	dropped atomic.Uint64

	mu sync.Mutex
	m  map[pingEnds]*pinger
}

func (p *pingers) get(e pingEnds) *pinger {
	if p.open.Load() == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.m[e]
}

// add gives a pinger an identifier that no other one to that address has.
func (p *pingers) add(c *pinger) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.m) >= maxPingers {
		return ErrTooManyPings
	}
	if p.m == nil {
		p.m = make(map[pingEnds]*pinger)
	}
	// A random start: who cannot see the pings cannot answer them.
	for c.id = uint16(rand.Uint32()); p.m[c.pingEnds] != nil; c.id++ {
	}
	p.m[c.pingEnds] = c
	p.open.Store(int32(len(p.m)))
	return nil
}

func (p *pingers) remove(e pingEnds) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.m, e)
	p.open.Store(int32(len(p.m)))
}

// pinger is a ping connection.
type pinger struct {
	pingEnds
	s        *Site
	deadline deadline
	replies  chan []byte
	refused  chan error
	ended    chan struct{}
	once     sync.Once
}

// DialPing makes a connection that pings an address from one inside this node's own
// subnets. Each message is a sequence number in two bytes, big-endian, and the payload:
// Write sends it as an echo request, and Read returns the answer to one. Where an ICMP
// error comes back instead, Read fails with ECONNREFUSED, EACCES (prohibited) or
// EHOSTUNREACH, and goes on. Which replies are lost nobody says.
func (s *Site) DialPing(_ context.Context, from, to netip.Addr) (net.Conn, error) {
	from, to = from.Unmap(), to.Unmap()
	if !from.IsValid() || !to.IsValid() || from.Is4() != to.Is4() || to.IsMulticast() || to.Zone() != "" {
		return nil, fmt.Errorf("netstack: ping %s from %s: not unicast addresses of one family", to, from)
	}
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("netstack: ping %s: %w", to, ErrClosed)
	}
	c := &pinger{
		pingEnds: pingEnds{from: from, to: to}, s: s, replies: make(chan []byte, maxReplies),
		refused: make(chan error, 1), ended: make(chan struct{}),
	}
	if err := s.pingers.add(c); err != nil {
		return nil, fmt.Errorf("netstack: ping %s: %w", to, err)
	}
	return c, nil
}

// Write implements [net.Conn].
func (c *pinger) Write(b []byte) (int, error) {
	select {
	case <-c.ended:
		return 0, c.failed("write", net.ErrClosed)
	default:
	}
	if len(b) < seqLen {
		return 0, c.failed("write", syscall.EINVAL)
	}
	if len(b)-seqLen > 65535-header.IPv4MinimumSize-echoLen {
		return 0, c.failed("write", syscall.EMSGSIZE)
	}
	if err := c.s.writeEcho(c.from, c.to, true, c.id, binary.BigEndian.Uint16(b), b[seqLen:]); err != nil {
		return 0, c.failed("write", err)
	}
	return len(b), nil
}

// Read implements [net.Conn].
func (c *pinger) Read(b []byte) (int, error) {
	late := c.deadline.wait()
	select { // before what has come, as in the kernel
	case <-late:
		return 0, c.failed("read", os.ErrDeadlineExceeded)
	default:
	}
	select {
	case m := <-c.replies:
		return copy(b, m), nil
	case err := <-c.refused:
		return 0, c.failed("read", err)
	case <-late:
		return 0, c.failed("read", os.ErrDeadlineExceeded)
	case <-c.ended:
	case <-c.s.ctx.Done():
	}
	return 0, c.failed("read", net.ErrClosed)
}

func (c *pinger) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "ping", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Close ends the connection.
func (c *pinger) Close() error {
	c.once.Do(func() {
		c.s.pingers.remove(c.pingEnds)
		close(c.ended)
	})
	return nil
}

// LocalAddr returns a *net.IPAddr.
func (c *pinger) LocalAddr() net.Addr { return &net.IPAddr{IP: c.from.AsSlice()} }

// RemoteAddr returns a *net.IPAddr.
func (c *pinger) RemoteAddr() net.Addr { return &net.IPAddr{IP: c.to.AsSlice()} }

// SetDeadline implements [net.Conn].
func (c *pinger) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements [net.Conn].
func (c *pinger) SetReadDeadline(t time.Time) error {
	c.deadline.set(t)
	return nil
}

// SetWriteDeadline does nothing: Write does not block.
func (*pinger) SetWriteDeadline(time.Time) error { return nil }

// takeReply gives an echo reply to the connection that waits for it, and reports
// whether it is one.
func (s *Site) takeReply(pkt *stack.PacketBuffer, m []byte) bool {
	v4 := pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber
	if v4 && header.ICMPv4(m).Type() != header.ICMPv4EchoReply || !v4 && header.ICMPv6(m).Type() != header.ICMPv6EchoReply {
		return false
	}
	n := pkt.Network()
	c := s.pingers.get(pingEnds{
		from: addrPort(n.DestinationAddress(), 0).Addr(), to: addrPort(n.SourceAddress(), 0).Addr(), id: binary.BigEndian.Uint16(m[4:]),
	})
	if c == nil {
		return true // to nobody
	}
	select {
	case c.replies <- append([]byte(nil), m[6:]...):
	default:
		s.pingers.dropped.Add(1)
	}
	return true
}

// unanswered tells a connection about an ICMP error.
func (s *Site) unanswered(p []byte) {
	if s.pingers.open.Load() == 0 {
		return
	}
	e, why := parseUnanswered(p)
	if why == nil {
		return
	}
	if c := s.pingers.get(e); c != nil {
		select {
		case c.refused <- why:
		default: // one is told already
		}
	}
}

// parseUnanswered reads an ICMP error about an echo request: destination unreachable,
// and time exceeded. Its checksum was not verified, as that of [parseLost].
func parseUnanswered(p []byte) (e pingEnds, why error) {
	switch {
	case len(p) >= header.IPv4MinimumSize && p[0]>>4 == 4 && p[9] == 1:
		n := int(p[0]&15) * 4
		if n < header.IPv4MinimumSize || len(p) < n+8+header.IPv4MinimumSize+echoLen {
			return e, nil
		}
		q := p[n+8:]
		k := int(q[0]&15) * 4
		if q[0]>>4 != 4 || q[9] != 1 || k < header.IPv4MinimumSize || len(q) < k+echoLen || q[k] != byte(header.ICMPv4Echo) {
			return e, nil
		}
		e = pingEnds{
			from: netip.AddrFrom4([4]byte(q[12:16])), to: netip.AddrFrom4([4]byte(q[16:20])), id: binary.BigEndian.Uint16(q[k+4:]),
		}
		if e.from != netip.AddrFrom4([4]byte(p[16:20])) {
			return e, nil // not about something that its receiver sent
		}
		return e, reason4(p[n], p[n+1])
	case len(p) >= 2*header.IPv6MinimumSize+8+echoLen && p[0]>>4 == 6 && p[6] == 58:
		m, q := p[40:], p[48:]
		if q[0]>>4 != 6 || q[6] != 58 || q[40] != byte(header.ICMPv6EchoRequest) {
			return e, nil
		}
		e = pingEnds{
			from: netip.AddrFrom16([16]byte(q[8:24])), to: netip.AddrFrom16([16]byte(q[24:40])), id: binary.BigEndian.Uint16(q[44:]),
		}
		if e.from != netip.AddrFrom16([16]byte(p[24:40])) {
			return e, nil
		}
		return e, reason6(m[0], m[1])
	}
	return e, nil
}

// errTooFar is EHOSTUNREACH, too.
var errTooFar = fmt.Errorf("time exceeded: %w", syscall.EHOSTUNREACH)

// reason4 and reason6 are errors of the kernel's for an ICMP type and code; nil: it is
// none that ends a ping.
func reason4(kind, code byte) error {
	switch {
	case kind == 11:
		return errTooFar
	case kind != 3 || code == 4: // what is too big is sent in fragments
		return nil
	case code == 2 || code == 3:
		return syscall.ECONNREFUSED
	case code == 9 || code == 10 || code == 13:
		return syscall.EACCES
	default:
		return syscall.EHOSTUNREACH
	}
}

func reason6(kind, code byte) error {
	switch {
	case kind == 3:
		return errTooFar
	case kind != 1:
		return nil
	case code == 4:
		return syscall.ECONNREFUSED
	case code == 1 || code == 5:
		return syscall.EACCES
	default:
		return syscall.EHOSTUNREACH
	}
}

// WriteEcho sends an echo reply.
func (s *Site) WriteEcho(from, to netip.Addr, id, seq uint16, payload []byte) error {
	return s.writeEcho(from, to, false, id, seq, payload)
}

func (s *Site) writeEcho(from, to netip.Addr, request bool, id, seq uint16, payload []byte) error {
	protocol, kind4, kind6 := icmp.ProtocolNumber4, header.ICMPv4EchoReply, header.ICMPv6EchoReply
	if request {
		kind4, kind6 = header.ICMPv4Echo, header.ICMPv6EchoRequest
	}
	if !from.Is4() {
		protocol = icmp.ProtocolNumber6
	}
	return s.write(from, to, protocol, echoLen, payload, func(h []byte, sum uint16) {
		if from.Is4() {
			m := header.ICMPv4(h)
			m.SetType(kind4)
			m.SetIdent(id)
			m.SetSequence(seq)
			m.SetChecksum(^checksum.Checksum(h, checksum.Checksum(payload, 0))) // without pseudo-header
			return
		}
		m := header.ICMPv6(h)
		m.SetType(kind6)
		m.SetIdent(id)
		m.SetSequence(seq)
		m.SetChecksum(^checksum.Checksum(h, sum))
	})
}

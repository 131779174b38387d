package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Reason is what an ICMP error says.
type Reason uint8

// The reasons.
const (
	PortUnreachable Reason = iota + 1 // nobody has that port
	HostUnreachable                   // there is no way to that host
	Prohibited                        // the policy of this site says no
)

// icmpPerSecond bounds the ICMP errors that a [Site] sends, since a flood must not
// be answered with another one.
const icmpPerSecond = 200

// Quote is what an ICMP error has of the packet that it is about: the IP header and
// eight bytes. The zero Quote is of no packet.
type Quote struct {
	src, dst netip.Addr
	b        []byte
}

// quote copies the headers of a packet.
func quote(pkt *stack.PacketBuffer) Quote {
	n := pkt.Network()
	src, dst := addrPort(n.SourceAddress(), 0).Addr(), addrPort(n.DestinationAddress(), 0).Addr()
	t := pkt.TransportHeader().Slice()
	b := make([]byte, ipLen(src)+8)
	protocol := pkt.TransportProtocolNumber
	encodeIP(b, src, dst, protocol)
	// The length of the packet as it was sent, which some receivers compare.
	size := len(t) + pkt.Data().Size()
	if src.Is4() {
		h := header.IPv4(b)
		h.SetTotalLength(uint16(header.IPv4MinimumSize + size))
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
	} else {
		header.IPv6(b).SetPayloadLength(uint16(size))
	}
	copy(b[ipLen(src):], t)
	return Quote{src: src, dst: dst, b: b}
}

// limitedICMP counts the errors of a second.
type limitedICMP struct {
	dropped atomic.Uint64

	mu     sync.Mutex
	second int64
	sent   int
}

func (l *limitedICMP) allow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second {
		l.second, l.sent = s, 0
	}
	if l.sent >= icmpPerSecond {
		l.dropped.Add(1)
		return false
	}
	l.sent++
	return true
}

// Reject answers a packet with an ICMP error, whose source is the destination of
// that packet. It may be dropped: errors are limited.
func (s *Site) Reject(q Quote, why Reason) {
	if q.b == nil || !s.refused.allow(time.Now()) {
		return
	}
	const head = 8
	b := make([]byte, ipLen(q.src)+head+len(q.b))
	m := b[ipLen(q.src):]
	copy(m[head:], q.b)
	if q.src.Is4() {
		encodeIP(b, q.dst, q.src, header.ICMPv4ProtocolNumber)
		h := header.ICMPv4(m)
		h.SetType(header.ICMPv4DstUnreachable)
		h.SetCode(code4(why))
		h.SetChecksum(^checksum.Checksum(m, 0))
	} else {
		encodeIP(b, q.dst, q.src, header.ICMPv6ProtocolNumber)
		h := header.ICMPv6(m)
		h.SetType(header.ICMPv6DstUnreachable)
		h.SetCode(code6(why))
		h.SetChecksum(^checksumICMPv6(q.dst, q.src, m))
	}
	s.link.push(b)
}

// code4 and code6: RFC 792, RFC 1812 section 5.2.7.1, RFC 4443 section 3.1.
func code4(why Reason) header.ICMPv4Code {
	switch why {
	case PortUnreachable:
		return header.ICMPv4PortUnreachable
	case Prohibited:
		return header.ICMPv4AdminProhibited
	default:
		return header.ICMPv4HostUnreachable
	}
}

func code6(why Reason) header.ICMPv6Code {
	switch why {
	case PortUnreachable:
		return header.ICMPv6PortUnreachable
	case Prohibited:
		return header.ICMPv6Prohibited
	default:
		return header.ICMPv6AddressUnreachable
	}
}

// Echo is one echo request for an address of this node's own subnets.
type Echo struct {
	From, To netip.Addr
	ID, Seq  uint16
	// Payload is the caller's again when the handler returns.
	Payload []byte

	s   *Site
	pkt *stack.PacketBuffer
}

// Site returns where the request came in.
func (e *Echo) Site() *Site { return e.s }

// Quote returns what an ICMP error about the request needs of it.
func (e *Echo) Quote() Quote { return quote(e.pkt) }

// takeICMP takes echo requests away from gVisor, which would answer them in the
// name of every host, and the answers to those of this site.
func (s *Site) takeICMP(_ stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	n := pkt.Network()
	view := stack.PayloadSince(pkt.TransportHeader())
	defer view.Release()
	m := view.AsSlice()
	if len(m) < header.ICMPv4MinimumSize {
		return false
	}
	request := pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber && header.ICMPv4(m).Type() == header.ICMPv4Echo ||
		pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber && header.ICMPv6(m).Type() == header.ICMPv6EchoRequest
	if !request {
		return s.takeReply(pkt, m)
	}
	// A packet that came in fragments names the fragment header.
	pkt.TransportProtocolNumber = header.ICMPv6ProtocolNumber
	if pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		pkt.TransportProtocolNumber = header.ICMPv4ProtocolNumber
	}
	s.cfg.Handler.Echo(&Echo{
		From: addrPort(n.SourceAddress(), 0).Addr(), To: addrPort(n.DestinationAddress(), 0).Addr(),
		ID: uint16(be32(m[4:]) >> 16), Seq: uint16(be32(m[4:])), Payload: m[8:],
		s: s, pkt: pkt,
	})
	return true
}

// Lost is a datagram that its receiver had no socket for.
type Lost struct{ From, To netip.AddrPort }

// parseLost reads an ICMP port unreachable about a UDP datagram. Its checksum was
// not verified; who forges one could as well send a right one.
func parseLost(p []byte) (Lost, bool) {
	var m, q []byte // the message, and the packet in it
	var outer, inner [2]netip.Addr
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && p[9] == 1:
		n := int(p[0]&15) * 4
		if n < 20 || len(p) < n+8+20+8 {
			return Lost{}, false
		}
		m, q = p[n:], p[n+8:]
		k := int(q[0]&15) * 4
		if m[0] != 3 || m[1] != 3 || q[0]>>4 != 4 || q[9] != 17 || k < 20 || len(q) < k+8 {
			return Lost{}, false
		}
		outer[1] = netip.AddrFrom4([4]byte(p[16:20]))
		inner[0], inner[1] = netip.AddrFrom4([4]byte(q[12:16])), netip.AddrFrom4([4]byte(q[16:20]))
		q = q[k:]
	case len(p) >= 40+8+40+8 && p[0]>>4 == 6 && p[6] == 58:
		m, q = p[40:], p[48:]
		if m[0] != 1 || m[1] != 4 || q[0]>>4 != 6 || q[6] != 17 {
			return Lost{}, false
		}
		outer[1] = netip.AddrFrom16([16]byte(p[24:40]))
		inner[0], inner[1] = netip.AddrFrom16([16]byte(q[8:24])), netip.AddrFrom16([16]byte(q[24:40]))
		q = q[40:]
	default:
		return Lost{}, false
	}
	if inner[0] != outer[1] {
		return Lost{}, false // not about something that its receiver sent
	}
	ports := be32(q)
	return Lost{
		From: netip.AddrPortFrom(inner[0], uint16(ports>>16)), To: netip.AddrPortFrom(inner[1], uint16(ports)),
	}, true
}

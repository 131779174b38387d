package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"corax/dataplane"
)

const (
	// pingOverhead is what a ping has besides its payload, in bytes.
	pingOverhead = header.IPv6MinimumSize + echoLen
	echoLen      = 8

	// maxPings bounds the pings that wait for an answer.
	maxPings = 4096
)

var (
	// ErrUnreachable means that some router, or our own fabric, answered a
	// ping with an ICMP error.
	ErrUnreachable = errors.New("destination unreachable")
	// ErrTooManyPings means that maxPings wait for their answers already.
	ErrTooManyPings = errors.New("too many pings at a time")
	// ErrClosed means that the stack was closed. It is a net.ErrClosed.
	ErrClosed = fmt.Errorf("netstack: %w", net.ErrClosed)
)

// TooBigError means that a ping does not fit.
type TooBigError struct {
	// MTU is the largest packet that fits, in bytes.
	MTU int
}

// Error says how much fits.
func (e *TooBigError) Error() string { return fmt.Sprintf("packet too big: MTU is %d", e.MTU) }

// pings are those that wait for their answers, by identifier and sequence
// number together.
type pings struct {
	waiting atomic.Int32 // len(m), to pass the lock when there are none

	mu     sync.Mutex
	closed bool
	next   uint32
	m      map[uint32]*ping
}

type ping struct {
	dst  netip.Addr
	done chan error // one value
}

func (p *pings) init() {
	// A random start: who cannot see the pings cannot answer them.
	p.next = rand.Uint32()
	p.m = make(map[uint32]*ping)
}

func (p *pings) add(dst netip.Addr) (uint32, *ping, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, nil, ErrClosed
	}
	if len(p.m) >= maxPings {
		return 0, nil, ErrTooManyPings
	}
	p.next++
	w := &ping{dst: dst, done: make(chan error, 1)}
	p.m[p.next] = w
	p.waiting.Store(int32(len(p.m)))
	return p.next, w, nil
}

// remove takes a ping out, when it is there and went to dst (or dst is zero).
func (p *pings) remove(id uint32, dst netip.Addr) *ping {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.m[id]
	if w == nil || dst.IsValid() && w.dst != dst {
		return nil
	}
	delete(p.m, id)
	p.waiting.Store(int32(len(p.m)))
	return w
}

func (p *pings) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, w := range p.m {
		w.done <- ErrClosed
	}
	clear(p.m)
	p.waiting.Store(0)
}

// Ping sends one ICMPv6 echo request with size bytes of payload from the overlay
// address and waits for the answer. The round trip is measured from the call of
// Send. Any number of pings may run at once.
//
// An ICMP error gives ErrUnreachable or a *TooBigError at once; no answer is the
// error of ctx.
func (s *Stack) Ping(ctx context.Context, dst netip.Addr, size int) (time.Duration, error) {
	rtt, err := s.ping(ctx, dst, size)
	if err != nil {
		return 0, fmt.Errorf("netstack: ping %s: %w", dst, err)
	}
	return rtt, nil
}

func (s *Stack) ping(ctx context.Context, dst netip.Addr, size int) (time.Duration, error) {
	dst = dst.WithZone("")
	if !dst.Is6() || dst.Is4In6() || dst.IsMulticast() || dst.IsUnspecified() {
		return 0, errors.New("not a unicast IPv6 address")
	}
	if size < 0 {
		return 0, fmt.Errorf("size %d", size)
	}
	if mtu := int(s.link.MTU()); size+pingOverhead > mtu {
		return 0, &TooBigError{MTU: mtu}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	id, w, err := s.pings.add(dst)
	if err != nil {
		return 0, err
	}
	defer s.pings.remove(id, netip.Addr{})
	start := time.Now()
	s.count.tx.Add(1)
	s.send.Send([]dataplane.Packet{{Data: echoRequest(s.overlay, dst, id, size)}})
	select {
	case err := <-w.done:
		return time.Since(start), err
	case <-ctx.Done():
	}
	select {
	case err := <-w.done: // both: the answer counts
		return time.Since(start), err
	default:
		return 0, context.Cause(ctx)
	}
}

func echoRequest(src, dst netip.Addr, id uint32, size int) []byte {
	b := make([]byte, pingOverhead+size)
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength:     uint16(echoLen + size),
		TransportProtocol: header.ICMPv6ProtocolNumber,
		HopLimit:          64,
		SrcAddr:           address(src),
		DstAddr:           address(dst),
	})
	e := header.ICMPv6(b[header.IPv6MinimumSize:])
	e.SetType(header.ICMPv6EchoRequest)
	binary.BigEndian.PutUint32(e[4:], id)
	for i := range e[echoLen:] {
		e[echoLen+i] = byte(i)
	}
	e.SetChecksum(^checksumICMPv6(src, dst, e))
	return b
}

// checksumICMPv6 is the sum of a message with its pseudo-header: all ones when
// the checksum in it is right.
func checksumICMPv6(src, dst netip.Addr, e []byte) uint16 {
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, address(src), address(dst), uint16(len(e)))
	return checksum.Checksum(e, sum)
}

// answer takes a packet that answers a ping and reports whether it did. An ICMP
// error is told to the ping and left to the stack, too.
func (p *pings) answer(self netip.Addr, b []byte) bool {
	if p.waiting.Load() == 0 || b[6] != uint8(header.ICMPv6ProtocolNumber) {
		return false
	}
	h := header.IPv6(b)
	e := b[header.IPv6MinimumSize:]
	if len(e) < echoLen || int(h.PayloadLength()) != len(e) {
		return false
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	kind := header.ICMPv6(e).Type()
	if dst != self || kind > header.ICMPv6ParamProblem && kind != header.ICMPv6EchoReply {
		return false
	}
	if checksumICMPv6(src, dst, e) != 0xffff {
		return false
	}
	if kind == header.ICMPv6EchoReply {
		w := p.remove(binary.BigEndian.Uint32(e[4:]), src)
		if w != nil {
			w.done <- nil
		}
		return w != nil
	}
	p.fail(self, e)
	return false
}

// fail tells a ping about the ICMP error e, which has the request in it.
func (p *pings) fail(self netip.Addr, e []byte) {
	req := e[echoLen:]
	if len(req) < pingOverhead || req[0]>>4 != 6 || req[6] != uint8(header.ICMPv6ProtocolNumber) ||
		netip.AddrFrom16([16]byte(req[8:24])) != self || header.ICMPv6(req[header.IPv6MinimumSize:]).Type() != header.ICMPv6EchoRequest {
		return
	}
	id := binary.BigEndian.Uint32(req[header.IPv6MinimumSize+4:])
	w := p.remove(id, netip.AddrFrom16([16]byte(req[24:40])))
	if w == nil {
		return
	}
	if header.ICMPv6(e).Type() == header.ICMPv6PacketTooBig {
		w.done <- &TooBigError{MTU: int(binary.BigEndian.Uint32(e[4:]))}
		return
	}
	w.done <- ErrUnreachable
}

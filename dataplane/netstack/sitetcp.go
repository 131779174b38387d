package netstack

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// siteTimeWait keeps a churn of connections from filling the memory.
	siteTimeWait = 5 * time.Second
	// acceptTimeout is how long an end that asked for a connection has to
	// acknowledge it. gVisor itself would wait for two minutes, and who forges
	// sources never does.
	acceptTimeout = 10 * time.Second
)

func tuneSite(s *stack.Stack) error {
	wait := tcpip.TCPTimeWaitTimeoutOption(siteTimeWait)
	linger := tcpip.TCPLingerTimeoutOption(siteTimeWait)
	for _, o := range []tcpip.SettableTransportProtocolOption{&wait, &linger} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set TCP option %T: %s", o, err)
		}
	}
	return nil
}

// attempts are the connections that are not established yet.
type attempts struct {
	max, perSource          int
	full, source, abandoned atomic.Uint64

	mu      sync.Mutex
	m       map[stack.TransportEndpointID]*Attempt
	sources map[tcpip.Address]int
}

func (t *attempts) init(most, perSource int) {
	t.max, t.perSource = most, perSource
	t.m = make(map[stack.TransportEndpointID]*Attempt)
	t.sources = make(map[tcpip.Address]int)
}

// add reports whether there is room for an attempt; a repeated one has none.
func (t *attempts) add(id stack.TransportEndpointID, a *Attempt) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.m[id] != nil:
		return false
	case len(t.m) >= t.max:
		t.full.Add(1)
		return false
	case t.sources[id.RemoteAddress] >= t.perSource:
		t.source.Add(1)
		return false
	}
	t.m[id] = a
	t.sources[id.RemoteAddress]++
	return true
}

func (t *attempts) get(id stack.TransportEndpointID) *Attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[id]
}

func (t *attempts) remove(id stack.TransportEndpointID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[id] == nil {
		return
	}
	delete(t.m, id)
	if t.sources[id.RemoteAddress]--; t.sources[id.RemoteAddress] == 0 {
		delete(t.sources, id.RemoteAddress)
	}
}

// Attempt is an end of another domain that asks for a TCP connection. One of
// Accept, Refuse, Reject and Drop decides on it, once; further decisions do
// nothing.
type Attempt struct {
	// From asks, To is asked for.
	From, To netip.AddrPort

	s     *Site
	quote Quote
	seq   uint32
	id    stack.TransportEndpointID
	req   *tcp.ForwarderRequest // nil once decided
}

// takeTCP takes a segment that belongs to no connection.
func (s *Site) takeTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false // a reset answers it
	}
	if s.ctx.Err() != nil {
		return true
	}
	a := &Attempt{
		From: addrPort(id.RemoteAddress, id.RemotePort), To: addrPort(id.LocalAddress, id.LocalPort),
		s: s, quote: quote(pkt), seq: h.SequenceNumber(), id: id,
	}
	if !s.waiting.add(id, a) {
		return true
	}
	// Whoever called holds mu, so Close does not wait for workers yet.
	s.workers.Add(1)
	if !s.tcp.HandlePacket(id, pkt) {
		s.waiting.remove(id)
		s.workers.Done()
		return false
	}
	return true
}

// attempted runs on a goroutine of gVisor's forwarder.
func (s *Site) attempted(r *tcp.ForwarderRequest) {
	defer s.workers.Done()
	id := r.ID()
	a := s.waiting.get(id)
	if a == nil {
		r.Complete(false)
		return
	}
	a.req = r
	defer a.Drop()
	s.cfg.Handler.TCP(s.ctx, a)
}

// done ends the attempt: with a reset, or without a word.
func (a *Attempt) done(reset bool) {
	if a.req == nil {
		return
	}
	a.req.Complete(reset)
	a.req = nil
	a.s.waiting.remove(a.id)
}

// Drop lets the attempt be: to its end it looks like a lost packet.
func (a *Attempt) Drop() { a.done(false) }

// Refuse answers with a reset: nobody listens on that port.
func (a *Attempt) Refuse() { a.done(true) }

// Reject answers with an ICMP error.
func (a *Attempt) Reject(why Reason) {
	if a.req != nil {
		a.s.Reject(a.quote, why)
	}
	a.done(false)
}

// Accept establishes the connection, which takes a round trip. The connection is
// as those of [Stack.DialTCP].
func (a *Attempt) Accept() (net.Conn, error) {
	if a.req == nil {
		return nil, fmt.Errorf("netstack: accept %s: decided already", a.From)
	}
	defer a.done(false)
	wq := new(waiter.Queue)
	late := time.AfterFunc(acceptTimeout, a.abandon)
	ep, err := a.req.CreateEndpoint(wq)
	late.Stop()
	if err != nil {
		return nil, fmt.Errorf("netstack: accept %s: %s", a.From, err)
	}
	return newStream(a.s.stack.Clock(), wq, ep), nil
}

// abandon gives up an end that does not acknowledge: nothing else ends the
// handshake but a reset of that end, so it gets one in its name.
func (a *Attempt) abandon() {
	a.s.waiting.abandoned.Add(1)
	p := resetOf(a.From, a.To, a.seq+1)
	a.s.mu.RLock()
	defer a.s.mu.RUnlock()
	if a.s.closed {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)})
	a.s.link.deliver(network(a.From.Addr()), pkt)
	pkt.DecRef()
}

// resetOf makes the packet with which from resets its connection with to.
func resetOf(from, to netip.AddrPort, seq uint32) []byte {
	src, dst := address(from.Addr()), address(to.Addr())
	b := make([]byte, ipLen(from.Addr())+header.TCPMinimumSize)
	encodeIP(b, from.Addr(), to.Addr(), header.TCPProtocolNumber)
	h := header.TCP(b[ipLen(from.Addr()):])
	h.Encode(&header.TCPFields{
		SrcPort: from.Port(), DstPort: to.Port(), SeqNum: seq,
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagRst,
	})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, header.TCPMinimumSize)
	h.SetChecksum(^checksum.Checksum(h, sum))
	return b
}

// ipLen is the length of the header that encodeIP makes.
func ipLen(a netip.Addr) int {
	if a.Is4() {
		return header.IPv4MinimumSize
	}
	return header.IPv6MinimumSize
}

// encodeIP writes the IP header of packet b.
func encodeIP(b []byte, src, dst netip.Addr, protocol tcpip.TransportProtocolNumber) {
	if src.Is4() {
		h := header.IPv4(b)
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(protocol), SrcAddr: address(src), DstAddr: address(dst),
		})
		h.SetChecksum(^h.CalculateChecksum())
		return
	}
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(b) - header.IPv6MinimumSize), TransportProtocol: protocol, HopLimit: 64,
		SrcAddr: address(src), DstAddr: address(dst),
	})
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(ip, port)
}

// DialTCP opens a connection from an address inside this node's own subnets, as
// [Stack.DialTCP] does. Its error is a [syscall.Errno] where there is one for the
// cause.
func (s *Site) DialTCP(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	if !to.IsValid() || from.Is4() != to.Addr().Is4() {
		return nil, fmt.Errorf("netstack: dial TCP %s from %s: not of one family", to, from)
	}
	local := tcpip.FullAddress{NIC: siteNIC, Addr: address(from)}
	c, err := dialFrom(ctx, s.stack, &local, to)
	if err != nil {
		return nil, fmt.Errorf("netstack: dial TCP %s: %w", to, err)
	}
	return c, nil
}

// be32 reads a number of a header.
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

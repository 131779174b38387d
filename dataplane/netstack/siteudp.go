package netstack

import (
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// Datagram is one UDP datagram for this node's own subnets, put together when it
// came in fragments.
type Datagram struct {
	From, To netip.AddrPort
	// Payload is the caller's again when the handler returns.
	Payload []byte

	s   *Site
	pkt *stack.PacketBuffer
}

// Site returns where the datagram came in.
func (d *Datagram) Site() *Site { return d.s }

// Quote returns what an ICMP error about the datagram needs of it.
func (d *Datagram) Quote() Quote { return quote(d.pkt) }

// takeUDP takes a datagram that no socket of ours waits for.
func (s *Site) takeUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.UDP(pkt.TransportHeader().Slice())
	net := pkt.Network()
	long, right := header.UDPValid(h, func() uint16 { return pkt.Data().Checksum() },
		uint16(pkt.Data().Size()), pkt.NetworkProtocolNumber, net.SourceAddress(), net.DestinationAddress(), false)
	if !long || !right {
		s.count.malformed.Add(1)
		return true
	}
	d := &Datagram{
		From: addrPort(id.RemoteAddress, id.RemotePort), To: addrPort(id.LocalAddress, id.LocalPort),
		Payload: pkt.Data().AsRange().ToSlice(), s: s, pkt: pkt,
	}
	d.Payload = d.Payload[:min(len(d.Payload), int(h.Length())-header.UDPMinimumSize)]
	s.cfg.Handler.UDP(d)
	return true
}

// WriteUDP sends a datagram, in fragments when it is too large for one packet. An
// error means that it was dropped.
func (s *Site) WriteUDP(from, to netip.AddrPort, payload []byte) error {
	return s.write(from.Addr(), to.Addr(), udp.ProtocolNumber, header.UDPMinimumSize, payload, func(h []byte, sum uint16) {
		size := uint16(len(h) + len(payload))
		u := header.UDP(h)
		u.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: size})
		if c := ^u.CalculateChecksum(sum); c != 0 {
			u.SetChecksum(c)
		} else {
			u.SetChecksum(0xffff) // RFC 768: zero means none
		}
	})
}

// write sends a packet with a transport header of n bytes, which fill writes. It
// gets the sum of pseudo-header and payload.
func (s *Site) write(from, to netip.Addr, protocol tcpip.TransportProtocolNumber, n int, payload []byte, fill func(h []byte, sum uint16)) error {
	fail := func(err tcpip.Error) error { return fmt.Errorf("netstack: send to %s: %w", to, errnoOf(err)) }
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	r, err := s.stack.FindRoute(siteNIC, address(from), address(to), network(to), false)
	if err != nil {
		return fail(err)
	}
	defer r.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: n + int(r.MaxHeaderLength()), Payload: buffer.MakeWithData(payload),
	})
	defer pkt.DecRef()
	sum := header.PseudoHeaderChecksum(protocol, address(from), address(to), uint16(n+len(payload)))
	fill(pkt.TransportHeader().Push(n), checksum.Checksum(payload, sum))
	pkt.TransportProtocolNumber = protocol
	if err := r.WritePacket(stack.NetworkHeaderParams{Protocol: protocol, TTL: r.DefaultTTL()}, pkt); err != nil {
		return fail(err)
	}
	return nil
}

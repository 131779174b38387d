package vxlan

import (
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	gheader "gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"corax/dataplane"
	"corax/dataplane/internal/udpbatch"
)

// Link is the face of an [Endpoint] for a gVisor stack: an Ethernet on the
// segment, where the stack has the address [SegmentPrefix] of the node. It gets
// ARP, neighbour discovery and what is for the segment, at a bounded rate, and
// sends only to the segment. It starts nothing: frames come in on the
// goroutine of [Endpoint.Run].
type Link struct {
	e       *Endpoint
	address tcpip.LinkAddress
	mtu     atomic.Uint32
	stack   atomic.Pointer[stack.NetworkDispatcher]
	onClose atomic.Pointer[func()]
}

var _ stack.LinkEndpoint = (*Link)(nil)

func newLink(e *Endpoint, mtu int) *Link {
	if mtu == 0 {
		mtu = dataplane.DefaultMTU
	}
	l := &Link{e: e, address: tcpip.LinkAddress(e.mac[:])}
	l.mtu.Store(uint32(mtu))
	return l
}

// deliver gives a frame to the stack. The stack copies it.
func (l *Link) deliver(f *frame, now time.Time) drop {
	d := l.stack.Load()
	if d == nil {
		return dropNoStack
	}
	if !l.e.limit.AllowN(now, 1) {
		return dropSegmentRate
	}
	l.e.count.segment.Add(1)
	n := ethernetLen + len(f.payload) // without padding
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(f.ethernet[:n])})
	defer pkt.DecRef()
	if !l.ParseHeader(pkt) {
		return dropShort
	}
	switch {
	case f.dst == broadcast:
		pkt.PktType = tcpip.PacketBroadcast
	case f.dst.group():
		pkt.PktType = tcpip.PacketMulticast
	default:
		pkt.PktType = tcpip.PacketHost
	}
	(*d).DeliverNetworkPacket(tcpip.NetworkProtocolNumber(f.etherType), pkt)
	return dropNone
}

// WritePackets implements [stack.LinkWriter]: each frame goes where the FDB
// says, and to every VTEP when it is a broadcast, a multicast or for a MAC that
// nobody knows (RFC 7348 section 4.2, with head-end replication).
func (l *Link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	now := time.Now()
	var msgs []udpbatch.Message
	for _, pkt := range pkts.AsSlice() {
		view := pkt.ToView()
		msgs = l.e.frameMessages(msgs, view.AsSlice(), now)
		view.Release() // frameMessages has copied it
	}
	l.e.conn.Write(msgs)
	return pkts.Len(), nil
}

// frameMessages appends the messages that carry a frame of the stack.
func (e *Endpoint) frameMessages(msgs []udpbatch.Message, ethernet []byte, now time.Time) []udpbatch.Message {
	h := makeHeader(e.vni, MAC{}, MAC{}, 0)
	b := append(h[:vxlanLen:vxlanLen], ethernet...)
	var f frame
	d := f.parse(b, e.vni)
	if d == dropNone && !leavesBySegment(&f) {
		d = dropOffSegment
	}
	if d != dropNone {
		e.count.drops[d].Add(1)
		return msgs
	}
	for _, v := range e.stations(f.dst, now) {
		to := netip.AddrPortFrom(v.addr, e.conn.LocalAddr().Port())
		msgs = append(msgs, udpbatch.Message{To: to, Payload: b})
		v.stats.txBytes.Add(uint64(len(f.payload)))
	}
	return msgs
}

// leavesBySegment keeps the stack from sending anything else here: that is the
// fabric's business, with its checks.
func leavesBySegment(f *frame) bool {
	if f.etherType == typeARP {
		return true
	}
	_, _, dst, ok := parseIP(f.etherType, f.payload)
	return ok && onSegment(dst)
}

// stations returns the VTEPs that a frame to dst goes to.
func (e *Endpoint) stations(dst MAC, now time.Time) []*vtep {
	t := e.table.Load()
	if dst.group() {
		return t.sorted
	}
	if v := t.macs[dst]; v != nil { // static wins
		return []*vtep{v}
	}
	if addr, ok := e.learned.lookup(dst, now); ok {
		if v := t.byAddr[addr]; v != nil {
			return []*vtep{v}
		}
	}
	return t.sorted
}

// AddHeader implements [stack.NetworkLinkEndpoint].
func (l *Link) AddHeader(pkt *stack.PacketBuffer) {
	gheader.Ethernet(pkt.LinkHeader().Push(ethernetLen)).Encode(&gheader.EthernetFields{
		SrcAddr: l.address,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements [stack.NetworkLinkEndpoint].
func (l *Link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(ethernetLen)
	return ok
}

// Attach implements [stack.NetworkLinkEndpoint].
func (l *Link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.stack.Store(nil)
		return
	}
	l.stack.Store(&d)
}

// IsAttached implements [stack.NetworkLinkEndpoint].
func (l *Link) IsAttached() bool { return l.stack.Load() != nil }

// Capabilities implements [stack.NetworkLinkEndpoint]: neighbours are resolved,
// and checksums are the stack's own.
func (l *Link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired
}

// MTU implements [stack.NetworkLinkEndpoint]; in bytes, without the Ethernet
// header.
func (l *Link) MTU() uint32 { return l.mtu.Load() }

// SetMTU implements [stack.NetworkLinkEndpoint].
func (l *Link) SetMTU(mtu uint32) { l.mtu.Store(mtu) }

// MaxHeaderLength implements [stack.NetworkLinkEndpoint].
func (l *Link) MaxHeaderLength() uint16 { return ethernetLen }

// LinkAddress implements [stack.NetworkLinkEndpoint]: [NodeMAC] of the node.
func (l *Link) LinkAddress() tcpip.LinkAddress { return l.address }

// SetLinkAddress implements [stack.NetworkLinkEndpoint]. It does nothing: other
// nodes derive the address from the node's IP.
func (l *Link) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType implements [stack.NetworkLinkEndpoint].
func (l *Link) ARPHardwareType() gheader.ARPHardwareType { return gheader.ARPHardwareEther }

// Wait implements [stack.NetworkLinkEndpoint]: there is nothing to wait for.
func (l *Link) Wait() {}

// Close implements [stack.NetworkLinkEndpoint]: the NIC is gone, the Endpoint
// and its socket stay.
func (l *Link) Close() {
	l.stack.Store(nil)
	if f := l.onClose.Swap(nil); f != nil {
		(*f)()
	}
}

// SetOnCloseAction implements [stack.NetworkLinkEndpoint].
func (l *Link) SetOnCloseAction(f func()) {
	if f == nil {
		l.onClose.Store(nil)
		return
	}
	l.onClose.Store(&f)
}

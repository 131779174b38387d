package netstack

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"corax/dataplane/internal/offload"
)

const (
	// gsoMax is the largest packet that TCP hands down, well below what an IP
	// length field holds.
	gsoMax = 60000

	// A queue that had more than queueKeep bytes gives its memory back when it rests.
	queueKeep = 64 << 10
)

// link is the overlay side as gVisor sees it: a queue out, and the stack's entry
// for what comes in.
type link struct {
	mtu        atomic.Uint32
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	full       atomic.Uint64 // packets dropped

	wake chan struct{} // one value: the queue is not empty
	most int           // Buffers.Queue

	mu    sync.Mutex
	queue queue
}

// queue is a row of packets in one piece of memory.
type queue struct {
	bytes []byte
	items []item
}

type item struct {
	from, to int
	header   offload.Header
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

func newLink(mtu, most int) *link {
	l := &link{wake: make(chan struct{}, 1), most: most}
	l.mtu.Store(uint32(mtu))
	return l
}

func (l *link) deliver(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if d := l.dispatcher.Load(); d != nil {
		(*d).DeliverNetworkPacket(protocol, pkt)
	}
}

// push queues a packet that did not come from gVisor.
func (l *link) push(p []byte) {
	l.mu.Lock()
	if len(l.queue.bytes)+len(p) > l.most {
		l.full.Add(1)
	} else {
		from := len(l.queue.bytes)
		l.queue.bytes = append(l.queue.bytes, p...)
		l.queue.items = append(l.queue.items, item{from: from, to: len(l.queue.bytes)})
	}
	l.mu.Unlock()
	l.rouse()
}

// rouse says that the queue is not empty.
func (l *link) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// WritePackets copies the packets into the queue. It is called with locks of the
// stack held, so it neither waits nor calls anybody.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	l.mu.Lock()
	for _, pkt := range pkts.AsSlice() {
		if len(l.queue.bytes)+pkt.Size() > l.most {
			l.full.Add(uint64(pkts.Len() - n))
			break
		}
		l.queue.add(pkt)
		n++
	}
	l.mu.Unlock()
	l.rouse()
	if n == 0 && pkts.Len() > 0 {
		return 0, &tcpip.ErrNoBufferSpace{}
	}
	return n, nil
}

func (q *queue) add(pkt *stack.PacketBuffer) {
	it := item{from: len(q.bytes), header: gsoHeader(pkt)}
	views, offset := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		q.bytes, offset = appendView(q.bytes, v, offset)
	}
	it.to = len(q.bytes)
	q.items = append(q.items, it)
}

// appendView appends v without the bytes that come before the packet.
func appendView(b []byte, v *buffer.View, skip int) ([]byte, int) {
	if skip >= v.Size() {
		return b, skip - v.Size()
	}
	return append(b, v.AsSlice()[skip:]...), 0
}

// gsoHeader says what is left to do for a packet: the checksum, and the cutting.
func gsoHeader(pkt *stack.PacketBuffer) offload.Header {
	g := pkt.GSOOptions
	if g.Type == stack.GSONone || !g.NeedsCsum {
		return offload.Header{}
	}
	h := offload.Header{Flags: offload.FlagNeedsChecksum, ChecksumStart: g.L3HdrLen, ChecksumOffset: g.CsumOffset}
	if pkt.Data().Size() > int(g.MSS) {
		h.GSOType, h.GSOSize = offload.GSOTCP6, g.MSS
		if g.Type == stack.GSOTCPv4 {
			h.GSOType = offload.GSOTCP4
		}
	}
	return h
}

// take returns what is queued and puts the empty queue spare in its place.
func (l *link) take(spare queue) queue {
	spare.bytes, spare.items = spare.bytes[:0], spare.items[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.queue
	l.queue = spare
	return q
}

// rest gives the memory of an empty queue back.
func (l *link) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue.items) == 0 {
		l.queue = queue{}
	}
}

// GSOMaxSize implements [stack.GSOEndpoint].
func (l *link) GSOMaxSize() uint32 { return gsoMax }

// SupportedGSO implements [stack.GSOEndpoint].
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// MTU implements [stack.LinkEndpoint].
func (l *link) MTU() uint32 { return l.mtu.Load() }

// SetMTU implements [stack.LinkEndpoint].
func (l *link) SetMTU(mtu uint32) { l.mtu.Store(mtu) }

// Attach implements [stack.LinkEndpoint].
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// IsAttached implements [stack.LinkEndpoint].
func (l *link) IsAttached() bool { return l.dispatcher.Load() != nil }

// MaxHeaderLength implements [stack.LinkEndpoint].
func (*link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements [stack.LinkEndpoint]: packets have none here.
func (*link) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements [stack.LinkEndpoint].
func (*link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements [stack.LinkEndpoint].
func (*link) Capabilities() stack.LinkEndpointCapabilities { return 0 }

// Wait implements [stack.LinkEndpoint]: it has no goroutine.
func (*link) Wait() {}

// ARPHardwareType implements [stack.LinkEndpoint].
func (*link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements [stack.LinkEndpoint].
func (*link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements [stack.LinkEndpoint].
func (*link) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close implements [stack.LinkEndpoint].
func (*link) Close() {}

// SetOnCloseAction implements [stack.LinkEndpoint].
func (*link) SetOnCloseAction(func()) {}

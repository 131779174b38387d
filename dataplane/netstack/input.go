package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"corax/dataplane"
	"corax/dataplane/internal/offload"
)

// Send delivers packets that are for the agent. The stack copies them, answers
// pings on the caller's goroutine, and leaves TCP to its own. It never blocks on
// the way out.
func (s *Stack) Send(batch []dataplane.Packet) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		s.count.closed.Add(uint64(len(batch)))
		return
	}
	s.joiners.feed(batch, s)
}

// receiver takes packets one by one, and rows of TCP segments as one.
type receiver interface {
	deliver(p []byte)
	deliverJoined(w offload.Write)
}

// joiners are coalescers that nobody uses now.
type joiners struct{ pool sync.Pool }

// feed gives a batch to r, with what follows each other joined.
func (j *joiners) feed(batch []dataplane.Packet, r receiver) {
	if len(batch) < 2 {
		for _, p := range batch {
			r.deliver(p.Data)
		}
		return
	}
	c, ok := j.pool.Get().(*offload.Coalescer)
	if !ok {
		c = &offload.Coalescer{TCP: true}
	}
	for len(batch) > 0 {
		n := min(len(batch), offload.MaxBatch)
		for _, w := range c.Coalesce(batch[:n]) {
			if w.Count == 1 {
				r.deliver(batch[w.Head].Data)
			} else {
				r.deliverJoined(w)
			}
		}
		batch = batch[n:]
	}
	j.pool.Put(c)
}

func (s *Stack) deliver(p []byte) {
	if len(p) < header.IPv6MinimumSize || p[0]>>4 != 6 {
		s.count.notIPv6.Add(1)
		return
	}
	if len(p) > header.IPv6MinimumSize+65535 {
		s.count.malformed.Add(1)
		return
	}
	s.count.rx.Add(1)
	if s.pings.answer(s.overlay, p) {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)})
	s.link.deliver(header.IPv6ProtocolNumber, pkt)
	pkt.DecRef()
}

// deliverJoined delivers TCP segments that follow each other as one: most of the
// stack's cost is by packet, not by byte.
func (s *Stack) deliverJoined(w offload.Write) {
	if w.GSO != offload.GSOTCP6 {
		s.count.notIPv6.Add(uint64(w.Count))
		return
	}
	s.count.rx.Add(uint64(w.Count))
	if !s.link.deliverJoined(w) {
		s.count.malformed.Add(uint64(w.Count))
	}
}

// deliverJoined delivers a row of segments, and reports whether it could.
func (l *link) deliverJoined(w offload.Write) bool {
	size := 0
	for _, b := range w.Vec {
		size += len(b)
	}
	v := buffer.NewView(size - offload.HeaderLen)
	for i, b := range w.Vec {
		if i == 0 {
			b = b[offload.HeaderLen:]
		}
		_, _ = v.Write(b) // into memory: cannot fail
	}
	// The header has only the sum of the pseudo-header. gVisor cannot be told for
	// one packet that it was verified before it was joined.
	h, err := offload.ParseHeader(w.Vec[0])
	if err != nil || offload.Complete(h, v.AsSlice()) != nil {
		v.Release()
		return false
	}
	protocol := header.IPv6ProtocolNumber
	if w.GSO == offload.GSOTCP4 {
		protocol = header.IPv4ProtocolNumber
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	l.deliver(protocol, pkt)
	pkt.DecRef()
	return true
}

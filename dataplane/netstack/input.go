package netstack

import (
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
	if len(batch) < 2 {
		for _, p := range batch {
			s.deliver(p.Data)
		}
		return
	}
	c, ok := s.joiners.Get().(*offload.Coalescer)
	if !ok {
		c = &offload.Coalescer{TCP: true}
	}
	for len(batch) > 0 {
		n := min(len(batch), offload.MaxBatch)
		for _, w := range c.Coalesce(batch[:n]) {
			if w.Count == 1 {
				s.deliver(batch[w.Head].Data)
			} else {
				s.deliverJoined(w)
			}
		}
		batch = batch[n:]
	}
	s.joiners.Put(c)
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
	s.link.deliver(pkt)
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
		s.count.malformed.Add(uint64(w.Count))
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	s.link.deliver(pkt)
	pkt.DecRef()
}

package netstack

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// SetReadBuffer sets how many bytes of memory the connection may hold of what was
// not read yet, at most what the stack allows, and ends its own choice of that. Half of it is the window. Make it
// smaller only before anything has come: what the other end sends in a window that
// it was told of earlier would be dropped, and count as lost.
func (c *stream) SetReadBuffer(bytes int) error {
	if bytes < bufferMin {
		return fmt.Errorf("netstack: set read buffer: %d bytes are less than %d", bytes, bufferMin)
	}
	_, most := c.ep.SocketOptions().ReceiveBufferLimits()
	c.ep.SocketOptions().SetReceiveBufferSize(min(int64(bytes), most), true)
	return nil
}

// SetWriteBuffer sets how many bytes may wait to be acknowledged, and ends the
// connection's own choice of that. It may be called at any time.
func (c *stream) SetWriteBuffer(bytes int) error {
	if bytes < bufferMin {
		return fmt.Errorf("netstack: set write buffer: %d bytes are less than %d", bytes, bufferMin)
	}
	_, most := c.ep.SocketOptions().SendBufferLimits()
	c.ep.SocketOptions().SetSendBufferSize(min(int64(bytes), most), true)
	return nil
}

// Rest reports whether the connection holds nothing to speak of: all was read, and less
// than the smallest write buffer waits to be acknowledged. Then its write buffer is that
// small until SetWriteBuffer is called, and a writer goes on, slowly. It may be called
// at any time.
func (c *stream) Rest() bool {
	size := int(c.ep.SocketOptions().GetSendBufferSize())
	_ = c.SetWriteBuffer(bufferMin)
	if c.empty() {
		return true
	}
	_ = c.SetWriteBuffer(size)
	return false
}

// empty is as Rest says, of a connection with the smallest write buffer.
func (c *stream) empty() bool {
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateEstablished, tcp.StateCloseWait, tcp.StateFinWait2:
	default:
		return false // with a FIN on its way the stack does not say what is before it
	}
	unread, err := c.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
	if err != nil || unread > 0 {
		return false
	}
	return c.ep.Readiness(waiter.WritableEvents)&waiter.WritableEvents != 0
}

// Hold takes what comes out of the stack's own queue while nobody reads, and keeps the
// window shut once it has half of the read buffer. It returns when until is closed, and
// Read goes on with what was taken; nobody may read before. What it holds is bounded by
// the read buffer, and half as much again for each gap that is found while it is shut.
//
// Without it a reader that is slow loses a connection with writes of some 100 bytes, as
// lines of a log are. The stack charges some 550 bytes for each segment beside what is
// in it, so that the buffer is full before the window is; then segments are dropped,
// and after 20 seconds of that the other end gives up. Begin within ten.
func (c *stream) Hold(until <-chan struct{}) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	size := c.ep.SocketOptions().GetReceiveBufferSize()
	s := shutter{c: c, size: size, now: size}
	defer s.set(size)
	look := make(chan struct{}, 1)
	var timer tcpip.Timer // nil: the window is open
	for {
		_, err := c.ep.Read(heldWriter{c}, tcpip.ReadOptions{})
		if _, empty := err.(*tcpip.ErrWouldBlock); err != nil && !empty {
			if _, end := err.(*tcpip.ErrClosedForReceive); !end {
				told := errnoOf(err) // once
				c.heldErr.Store(&told)
			}
			return
		}
		switch {
		case timer != nil && err == nil:
			s.set(1) // if there was a gap, it is filled
		case timer == nil && int64(len(c.held)) >= size/2:
			s.set(1)
			timer = c.clock.AfterFunc(holdLook, func() { look <- struct{}{} })
			defer timer.Stop()
		}
		if err == nil {
			continue
		}
		select {
		case <-until:
			return
		case <-ready:
		case <-look:
			s.look()
			timer.Reset(holdLook)
		}
	}
}

// holdLook is how often Hold looks whether what is missing is dropped.
const holdLook = time.Second

// shutter keeps a window shut by a read buffer of no size. Where segments are missing
// those behind them are in the buffer, too, and the stack drops whatever fills the gap:
// then the buffer must be larger than what is in it, which the stack does not tell.
type shutter struct {
	c         *stream
	size, now int64 // bytes: of the buffer as it was, and as it is
	dropped   uint64
}

func (s *shutter) set(size int64) {
	if s.now != size {
		s.now = size
		s.c.ep.SocketOptions().SetReceiveBufferSize(size, true)
	}
	s.dropped = s.c.dropped()
}

// look makes the buffer larger when segments were dropped and none was taken.
func (s *shutter) look() {
	if s.c.dropped() != s.dropped {
		s.set(min(s.size, max(2*s.now, bufferMin/2)))
	}
}

// dropped counts the segments for which there was no room.
func (c *stream) dropped() uint64 {
	if stats, ok := c.ep.Stats().(*tcp.Stats); ok {
		return stats.ReceiveErrors.SegmentQueueDropped.Value()
	}
	return 0
}

// heldWriter appends to what is held.
type heldWriter struct{ c *stream }

// Write implements [io.Writer].
func (w heldWriter) Write(b []byte) (int, error) {
	w.c.held = append(w.c.held, b...)
	return len(b), nil
}

// readHeld returns what Hold took, first.
func (c *stream) readHeld(b []byte) int {
	n := copy(b, c.held)
	if c.held = c.held[n:]; len(c.held) == 0 {
		c.held = nil
	}
	return n
}

package netstack

import (
	"fmt"

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

// Hold takes what comes out of the stack's own queue while nobody reads, closes the
// window, and opens it again when until is closed. It returns then, and Read goes on
// with what was taken; nobody may read before. What it holds is bounded by the window
// that the other end had: half of the read buffer.
//
// Without it a reader that is slow loses a connection with writes of some 100 bytes, as
// lines of a log are. The stack charges some 550 bytes for each segment beside what is
// in it, so that the buffer is full before the window is; then segments are dropped,
// and after 20 seconds of that the other end gives up. Begin within ten.
func (c *stream) Hold(until <-chan struct{}) {
	o := c.ep.SocketOptions()
	size := o.GetReceiveBufferSize()
	o.SetReceiveBufferSize(1, true)
	defer o.SetReceiveBufferSize(size, true)
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	w := heldWriter{c}
	for {
		for {
			if _, err := c.ep.Read(w, tcpip.ReadOptions{}); err != nil {
				if _, empty := err.(*tcpip.ErrWouldBlock); !empty {
					return // Read says so
				}
				break
			}
		}
		select {
		case <-until:
			return
		case <-ready:
		}
	}
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

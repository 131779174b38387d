package netstack

import "fmt"

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

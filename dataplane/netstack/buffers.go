package netstack

import "fmt"

// SetReadBuffer sets how many bytes of memory the connection may hold of what was
// not read yet, and ends its own choice of that. Half of it is the window. Make it
// smaller only before anything has come: what the other end sends in a window that
// it was told of earlier would be dropped, and count as lost.
func (c *stream) SetReadBuffer(bytes int) error {
	if bytes < bufferMin {
		return fmt.Errorf("netstack: set read buffer: %d bytes are less than %d", bytes, bufferMin)
	}
	c.ep.SocketOptions().SetReceiveBufferSize(int64(min(bytes, bufferMax)), true)
	return nil
}

// SetWriteBuffer sets how many bytes may wait to be acknowledged, and ends the
// connection's own choice of that. It may be called at any time.
func (c *stream) SetWriteBuffer(bytes int) error {
	if bytes < bufferMin {
		return fmt.Errorf("netstack: set write buffer: %d bytes are less than %d", bytes, bufferMin)
	}
	c.ep.SocketOptions().SetSendBufferSize(int64(min(bytes, bufferMax)), true)
	return nil
}

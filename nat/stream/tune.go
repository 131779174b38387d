package stream

import (
	"net"
	"time"
)

// tune sets what keeps the delay of a TCP connection short, and finds its death.
// Best effort: a stream works without.
func tune(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = t.SetNoDelay(true)
	// A dead peer is found within half a minute where nothing is sent.
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3})
	tuneSystem(t)
}

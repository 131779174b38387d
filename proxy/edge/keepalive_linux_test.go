package edge

import (
	"net"
	"testing"

	"corax/proxy/proxytest"
)

// TestKeepalive: the kernel looks after the leg to a node, and gives up an end that
// is gone within 60 seconds.
func TestKeepalive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x, err := New(Config{Listener: l})
	if err != nil {
		t.Fatal(err)
	}
	c, err := x.cfg.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	proxytest.Keepalive(t, c)
}

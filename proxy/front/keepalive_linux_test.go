package front

import (
	"net"
	"testing"

	"corax/proxy/proxytest"
)

// TestKeepalive: the kernel looks after the leg to a caller, and gives up an end that
// is gone within 60 seconds.
func TestKeepalive(t *testing.T) {
	l, err := open(t.Context(), wanted{kind: kindTLS, network: "tcp", addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	caller, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	proxytest.Keepalive(t, c)
}

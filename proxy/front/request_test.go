package front

import (
	"context"
	"io"
	"net"
	"testing"
)

// FuzzRequest sends whole connections to a plain front: whatever comes, nothing but
// a node is asked for, and the connection ends.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\n\r\n"))
	f.Add([]byte("GET http://edge1:9100/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
	f.Add([]byte("POST /?nodeName=edge2 HTTP/1.1\r\nHost: a:9100\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	f.Add([]byte("CONNECT edge1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nhello"))
	front := routing(f)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- front.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-ended })
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kind := range []string{kindHTTP, kindConnect, kindTLS} {
			here, there := net.Pipe()
			done := make(chan struct{})
			go func() {
				front.serve(ctx, &arrival{Conn: unixConn{there}, kind: kind, leave: func() {}, listen: 10282, port: 10250})
				close(done)
			}()
			go func() { _, _ = io.Copy(io.Discard, here) }()
			_, _ = here.Write(b)
			_ = here.Close()
			<-done
		}
		if n := front.cfg.Live.Len(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

// unixConn has CONNECT do without TLS.
type unixConn struct{ net.Conn }

func (unixConn) LocalAddr() net.Addr { return &net.UnixAddr{} }

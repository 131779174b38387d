package front

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// sayWithin is how long a connection has to say what it wants, TLS handshakes that
// end here included.
const sayWithin = 10 * time.Second

// arrival is a connection of which it is not known yet what it wants.
type arrival struct {
	net.Conn
	kind   string
	from   netip.AddrPort // zero on a unix socket
	began  time.Time
	leave  func() // lets it out of the gate
	port   uint16 // of nodes, by the listener; 0: it has none
	listen uint16 // our own port
}

// serve finds out what a connection wants and does it. The connection is closed
// when it returns, unless it was handed to the web server.
func (f *Front) serve(ctx context.Context, a *arrival) {
	defer a.leave()
	defer context.AfterFunc(ctx, func() { _ = a.Close() })()
	_ = a.SetDeadline(a.began.Add(sayWithin))
	switch a.kind {
	case kindTLS:
		f.serveTLS(ctx, a)
	case kindHTTP:
		f.serveHTTP(ctx, a)
	default:
		f.serveConnect(ctx, a)
	}
}

package front

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"corax/proxy"
)

// Alerts of TLS (RFC 8446 6) that callers get before a handshake.
const (
	alertAccessDenied     = 49
	alertDecodeError      = 50
	alertInternalError    = 80
	alertUnrecognizedName = 112
)

// serveTLS reads the server name that a caller sends and passes the connection
// through to that node, or ends TLS here when the name is ours.
func (f *Front) serveTLS(ctx context.Context, a *arrival) {
	name, hello, err := readHello(a)
	if err != nil {
		f.refuseHello(a, err)
		return
	}
	if f.ours(name) {
		f.terminate(ctx, a, &replayConn{Conn: a.Conn, ahead: hello})
		return
	}
	f.passThrough(ctx, a, hello, name)
}

// ours reports whether TLS with that server name ends here.
func (f *Front) ours(name string) bool {
	if !f.cfg.terminates() {
		return false
	}
	if name == "" {
		return f.cfg.Unnamed
	}
	return slices.ContainsFunc(f.cfg.ServiceNames, func(s string) bool { return strings.EqualFold(s, name) })
}

// readHello reads until the ClientHello is whole, and not a byte more than fits.
// What was read is to be passed on.
func readHello(c net.Conn) (name string, hello []byte, err error) {
	buf := make([]byte, 2048)
	n, need := 0, 1
	for {
		m, err := c.Read(buf[n:])
		n += m
		if n >= min(need, maxHello) {
			name, more, perr := parseHello(buf[:n])
			if !errors.Is(perr, errHelloMore) {
				return name, buf[:n], perr
			}
			need = more
		}
		if err != nil {
			return "", buf[:n], cut(err, n)
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, min(len(buf), maxHello-n))...)
		}
	}
}

// refuseHello answers what is no ClientHello. Who speaks HTTP gets an answer in that.
func (f *Front) refuseHello(a *arrival, err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.refuse(a, request{front: kindTLS}, proxy.Refuse(proxy.CodeSlow, "request: no whole ClientHello within 10 s"))
		_ = a.Close()
	case errors.Is(err, errHelloPlain):
		r := proxy.Refuse(proxy.CodeMalformed, "request: this port speaks TLS")
		f.refuse(a, request{front: kindTLS}, r)
		answerLine(a, "HTTP/1.0", r)
	case errors.Is(err, errHelloBad), errors.Is(err, errHelloLong):
		f.refuse(a, request{front: kindTLS}, &proxy.Refusal{Code: proxy.CodeMalformed, Text: "request: " + err.Error(), Err: err})
		alert(a, alertDecodeError)
	case errors.Is(err, errSilent):
		_ = a.Close()
	default:
		f.refuse(a, request{front: kindTLS}, &proxy.Refusal{Code: proxy.CodeMalformed, Text: "request: no ClientHello", Err: err})
		_ = a.Close()
	}
}

// passThrough connects to the node and copies, the ClientHello first.
func (f *Front) passThrough(parent context.Context, a *arrival, hello []byte, name string) {
	ctx, done := f.streamContext(parent)
	defer done()
	node, ok := f.table.Load().byName(name, f.cfg.Names)
	if !ok || strings.HasSuffix(name, ".") {
		f.refuse(a, request{front: kindTLS}, proxy.Refuse(proxy.CodeUnknownNode, "request: no node has the server name "+quoted(name)))
		alert(a, alertUnrecognizedName)
		return
	}
	r := request{front: kindTLS, target: proxy.Target{Node: node.Name, Port: a.port}, hello: true}
	_, err := node.target(a.port)
	if err == nil {
		err = f.splice(ctx, a, a.Conn, r, hello, nil)
	}
	if err != nil {
		f.refuse(a, r, err)
		alert(a, alertFor(err))
	}
}

// alertFor returns what a refusal is to a caller that speaks TLS.
func alertFor(err error) byte {
	switch proxy.CodeOf(err) {
	case proxy.CodeUnknownNode:
		return alertUnrecognizedName
	case proxy.CodePort, proxy.CodeCaller, proxy.CodeForbidden:
		return alertAccessDenied
	default:
		return alertInternalError
	}
}

// alert sends a fatal alert in the clear, as one may before a handshake, and closes.
func alert(c net.Conn, description byte) {
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.Write([]byte{21, 3, 1, 0, 2, 2, description})
	farewell(c)
}

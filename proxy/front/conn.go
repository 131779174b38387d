package front

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"corax/proxy"
)

// replayConn is a connection of which some bytes were read ahead.
type replayConn struct {
	net.Conn
	ahead []byte
}

// Read returns what was read ahead first.
func (c *replayConn) Read(b []byte) (int, error) {
	if len(c.ahead) == 0 {
		c.ahead = nil
		return c.Conn.Read(b)
	}
	n := copy(b, c.ahead)
	c.ahead = c.ahead[n:]
	return n, nil
}

// CloseWrite ends the direction to the caller.
func (c *replayConn) CloseWrite() error { return closeWrite(c.Conn) }

var (
	_ proxy.CloseWriter = (*replayConn)(nil)
	_ proxy.CloseWriter = (*tls.Conn)(nil)
)

func closeWrite(c net.Conn) error {
	if w, ok := c.(proxy.CloseWriter); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// tlsConn is a connection whose TLS ends here, and that can be cut off.
type tlsConn struct {
	*tls.Conn
	raw net.Conn
}

// SetLinger closes the connection below, by a reset: a close_notify would have a
// stream that is cut off look complete.
func (c *tlsConn) SetLinger(sec int) error {
	if l, ok := c.raw.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(sec)
	}
	return c.raw.Close()
}

var _ proxy.CloseWriter = (*tlsConn)(nil)

// errSilent is of a connection that was opened and closed, as health checks do. It
// is no request, and nobody is told.
var errSilent = errors.New("nothing was said")

// cut is the error of a connection that ended after n bytes.
func cut(err error, n int) error {
	if err != nil && n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		return errSilent
	}
	return err
}

// answer refuses in HTTP where the caller is there to read it, and closes.
func answer(c net.Conn, version string, err error) {
	if r, ok := errors.AsType[*proxy.Refusal](err); ok {
		answerLine(c, version, r)
		return
	}
	_ = c.Close()
}

// answerLine refuses in HTTP, and closes.
func answerLine(c net.Conn, version string, r *proxy.Refusal) {
	status := r.Code.HTTPStatus()
	body := line(r)
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprintf(c, "%s %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		version, status, http.StatusText(status), len(body), body)
	farewell(c)
}

// line is a refusal as callers read it.
func line(r *proxy.Refusal) string { return "corax: " + r.Text + "\n" }

// farewell closes a connection so that the caller gets what was written last: to
// close with bytes unread would reset it. A caller that goes on sending gets a
// second and a quarter of a megabyte.
func farewell(c net.Conn) {
	defer c.Close()
	if closeWrite(c) != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 256<<10))
}

package front

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"corax/proxy"
)

// serveHTTP reads the head of a request on a plain connection and hands it to the
// web server.
func (f *Front) serveHTTP(ctx context.Context, a *arrival) {
	f.handOver(ctx, a, &webConn{Conn: a.Conn, arrival: a})
}

// terminate ends the caller's TLS, and goes on as serveHTTP.
func (f *Front) terminate(ctx context.Context, a *arrival, c *replayConn) {
	r := request{front: kindTLS}
	cert, err := f.cfg.Certificate()
	if err != nil {
		f.refuse(a, r, &proxy.Refusal{Code: proxy.CodeOff, Text: "request: no certificate of our own yet: " + err.Error(), Err: err})
		alert(a.Conn, alertInternalError)
		return
	}
	t := tls.Server(c, f.serverTLS(cert))
	if err := t.HandshakeContext(ctx); err != nil {
		f.refuse(a, r, &proxy.Refusal{Code: proxy.CodeMalformed, Text: "request: TLS handshake: " + err.Error(), Err: err})
		_ = a.Close()
		return
	}
	state := t.ConnectionState()
	f.handOver(ctx, a, &webConn{Conn: &tlsConn{t, a.Conn}, arrival: a, tls: &state})
}

func (f *Front) serverTLS(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{*cert},
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
	}
	if f.cfg.ClientCAs == nil {
		return c
	}
	if cas := f.cfg.ClientCAs(); cas != nil {
		c.ClientAuth = tls.VerifyClientCertIfGiven
		c.ClientCAs = cas
	}
	return c
}

// handOver returns when the web server is done with the connection.
func (f *Front) handOver(ctx context.Context, a *arrival, c *webConn) {
	h, read, err := readHead(c.Conn)
	if _, uerr := url.ParseRequestURI(h.target); err == nil && uerr != nil && h.method != http.MethodConnect {
		err = badHead("the target %s is not a path or a URL", quoted(h.target))
	}
	if err != nil {
		f.refuse(a, request{front: a.kind}, err)
		answer(c.Conn, "HTTP/1.1", err)
		return
	}
	c.ahead = read
	c.stalls.count = &f.cfg.Counters.Stalls
	c.done = make(chan struct{})
	_ = c.SetDeadline(time.Time{})
	select {
	case f.queue.conns <- c:
		<-c.done
	case <-ctx.Done():
		_ = c.Close()
	}
}

// webConn is a connection that the web server has. It has one request.
type webConn struct {
	net.Conn
	arrival *arrival
	tls     *tls.ConnectionState // nil: plain
	ahead   []byte
	handled atomic.Bool
	stalls  stallWatch
	done    chan struct{}
	once    sync.Once
}

// Read returns the head, which was read ahead, first.
func (c *webConn) Read(b []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(b, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	c.ahead = nil
	return c.Conn.Read(b)
}

// Write counts a caller that takes nothing for long.
func (c *webConn) Write(b []byte) (int, error) {
	defer c.stalls.watch()()
	return c.Conn.Write(b)
}

// CloseWrite ends the direction to the caller.
func (c *webConn) CloseWrite() error { return closeWrite(c.Conn) }

// released says that the web server, and the handler, are done with it.
func (c *webConn) released() { c.once.Do(func() { close(c.done) }) }

// connQueue is the listener that the web server accepts from.
type connQueue struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newConnQueue() *connQueue {
	return &connQueue{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept waits for a connection.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// Addr returns no address in particular.
func (*connQueue) Addr() net.Addr { return &net.TCPAddr{} }

type webConnKey struct{}

func (f *Front) newWeb() *http.Server {
	s := &http.Server{
		Handler:           http.HandlerFunc(f.handle),
		ReadHeaderTimeout: sayWithin,
		MaxHeaderBytes:    maxHead,
		// Nothing is answered before it is known who asks.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, webConnKey{}, c)
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			// The connection of an upgrade is released by the handler.
			w, ok := c.(*webConn)
			if !ok || s != http.StateClosed {
				return
			}
			if !w.handled.Load() {
				f.refuse(w.arrival, request{front: w.arrival.kind}, badHead("net/http does not take it"))
			}
			w.released()
		},
	}
	s.SetKeepAlivesEnabled(false)
	return s
}

// serveWeb runs the web server until ctx ends. Its connections end with those who
// handed them over.
func (f *Front) serveWeb(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = f.web.Close() })()
	if err := f.web.Serve(f.queue); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		f.log.Error("the web server ended", "err", err)
	}
}

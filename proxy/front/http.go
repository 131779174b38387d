package front

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"corax/proxy"
	"corax/proxy/splice"
)

// maxToken bounds a bearer token; those of Kubernetes have two kilobytes.
const maxToken = 16 << 10

// exchange is one HTTP request on its way.
type exchange struct {
	front *Front
	conn  *webConn
	info  request
	s     *stream
	https bool   // how the node is asked
	token string // goes on to the node
	up    string // protocol to change to; empty: none

	counted  *countedConn // to the node; nil: none yet
	hijacked bool
	status   int
	err      error
}

// handle serves one request.
func (f *Front) handle(w http.ResponseWriter, r *http.Request) {
	conn, ok := r.Context().Value(webConnKey{}).(*webConn)
	if !ok {
		return
	}
	conn.handled.Store(true)
	ctx, done := f.streamContext(r.Context())
	defer done()
	x := &exchange{front: f, conn: conn, info: request{front: conn.arrival.kind, method: r.Method, path: r.URL.Path}}
	defer func() {
		if x.hijacked { // else the web server says so
			conn.released()
		}
	}()
	if err := x.prepare(ctx, r); err != nil {
		x.refuse(w, err)
		return
	}
	defer x.s.live.Close()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	x.s.live.EndIdle(end)
	defer func() {
		if x.err == nil {
			x.err = context.Cause(ctx)
		}
		f.record(x.s, x.info, x.status, x.err)
	}()
	if x.up != "" {
		x.upgrade(ctx, w, r)
		return
	}
	x.forward(ctx, w, r)
}

// prepare finds out where the request goes and who asks, and enters it into the
// registry.
func (x *exchange) prepare(ctx context.Context, r *http.Request) error {
	f, a := x.front, x.conn.arrival
	if r.Method == http.MethodConnect {
		return badHead("CONNECT is not served here")
	}
	target, err := f.route(r, a)
	if err != nil {
		return err
	}
	x.info.target = target
	if x.up, err = upgradeOf(r.Header); err != nil {
		return err
	}
	x.https = f.table.Load().speaksTLS(target, x.conn.tls != nil)
	f.cfg.Counters.Took(proxy.StageRequest, time.Since(a.began))
	if f.reviews != nil {
		began := time.Now()
		err := x.authorize(ctx, r)
		f.cfg.Counters.Took(proxy.StageAuth, time.Since(began))
		if err != nil {
			return err
		}
	}
	if x.s, err = f.open(a, x.info); err != nil {
		return err
	}
	a.leave()
	return nil
}

func (f *Front) route(r *http.Request, a *arrival) (proxy.Target, error) {
	n, err := namingOf(r)
	if err != nil {
		return proxy.Target{}, err
	}
	to, err := n.route(a.listen, f.nodeOf)
	if err != nil {
		return proxy.Target{}, err
	}
	if to.port == 0 {
		if to.port = a.port; to.port == 0 {
			return proxy.Target{}, badHead("it names no port of a node")
		}
	}
	return f.target(to.host, to.port)
}

// nodeOf returns the node that a host stands for by name.
func (f *Front) nodeOf(host string) (string, bool) {
	n, ok := f.table.Load().byName(host, f.cfg.Names)
	return n.Name, ok
}

// authorize finds out who asks, and whether it may.
func (x *exchange) authorize(ctx context.Context, r *http.Request) error {
	u, err := x.authenticate(ctx, r)
	if err != nil {
		return err
	}
	x.info.user = u.Name
	return x.front.reviews.may(ctx, x.conn.arrival.from.Addr(), u, access(r.Method, r.URL, x.up != "", x.info.target.Node))
}

// authenticate takes the token when there is one, since it is what the node will
// see, and else the certificate.
func (x *exchange) authenticate(ctx context.Context, r *http.Request) (User, error) {
	if v := r.Header.Values("Authorization"); len(v) > 0 {
		scheme, token, _ := strings.Cut(v[0], " ")
		token = strings.TrimSpace(token)
		if len(v) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxToken {
			return User{}, proxy.Refuse(proxy.CodeUnauthenticated, "authentication: a bearer token is taken, and nothing else")
		}
		u, err := x.front.reviews.user(ctx, x.conn.arrival.from.Addr(), token)
		x.token = token
		return u, err
	}
	if x.conn.tls != nil && len(x.conn.tls.VerifiedChains) > 0 {
		if u, ok := certificateUser(x.conn.tls.PeerCertificates[0]); ok {
			return u, nil
		}
	}
	return User{}, proxy.Refuse(proxy.CodeUnauthenticated, "authentication: no bearer token and no client certificate")
}

// refuse answers a request that was not served.
func (x *exchange) refuse(w http.ResponseWriter, err error) {
	x.front.refuse(x.conn.arrival, x.info, err)
	x.answer(w, err)
}

func (x *exchange) answer(w http.ResponseWriter, err error) {
	r, ok := errors.AsType[*proxy.Refusal](err)
	if !ok {
		r = proxy.Refuse(proxy.CodeBackend, err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Code == proxy.CodeUnauthenticated {
		h.Set("WWW-Authenticate", "Bearer")
	}
	x.status = r.Code.HTTPStatus()
	w.WriteHeader(x.status)
	_, _ = w.Write([]byte(line(r)))
}

// forward passes a request and its answer on, as they come.
func (x *exchange) forward(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	// The transport would go on dialling when the request is over.
	dial := func() (net.Conn, error) { return x.dial(ctx) }
	p := httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { x.rewrite(p.Out) },
		Transport:     x.front.backend,
		FlushInterval: -1,
		BufferPool:    &x.front.buffers,
		ErrorLog:      x.front.web.ErrorLog,
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode == http.StatusSwitchingProtocols {
				return errors.New("it changed the protocol, which nobody asked for")
			}
			x.status = res.StatusCode
			res.Body = &nodeBody{res.Body, &x.err}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			x.failed(w, err)
		},
	}
	p.ServeHTTP(w, r.WithContext(context.WithValue(ctx, backendKey{}, dial)))
}

// nodeBody notes how the body of an answer broke off.
type nodeBody struct {
	io.ReadCloser
	err *error
}

// Read reads from the node.
func (b *nodeBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && *b.err == nil {
		*b.err = &splice.EndError{B: true, Op: "read", Err: err}
	}
	return n, err
}

func (x *exchange) dial(ctx context.Context) (net.Conn, error) {
	c, counted, err := x.front.connectNode(ctx, x.s, x.https)
	x.counted = counted
	return c, err
}

// rewrite makes the request that the node gets: for that node, and with nothing in
// it that only the front is to know. The caller's token goes to nodes that proved
// who they are; without Auth credentials are not ours to touch.
func (x *exchange) rewrite(out *http.Request) {
	target := x.info.target.String()
	out.URL.Scheme, out.URL.Host, out.Host = "http", target, target
	for _, h := range []string{headerHost, headerDest, headerMode} {
		out.Header.Del(h)
	}
	if x.front.reviews == nil {
		return
	}
	for h := range out.Header {
		if strings.HasPrefix(h, "X-Remote-") || strings.HasPrefix(h, "Impersonate-") {
			out.Header.Del(h)
		}
	}
	out.Header.Del("Authorization")
	if x.https && x.token != "" {
		out.Header.Set("Authorization", "Bearer "+x.token)
	}
}

// bufferPool lends the buffers that answers are copied with.
type bufferPool struct{ pool sync.Pool }

const copyBuffer = 16 << 10

// Get returns a buffer.
func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[copyBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, copyBuffer)
}

// Put takes one back.
func (p *bufferPool) Put(b []byte) {
	if len(b) == copyBuffer {
		p.pool.Put((*[copyBuffer]byte)(b))
	}
}

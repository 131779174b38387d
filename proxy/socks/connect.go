package socks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"corax/proxy/outbound"
	"corax/proxy/splice"
)

// maxHeader bounds an HTTP request, in bytes.
const maxHeader = 16 << 10

// ServeConnect serves HTTP CONNECT on ln until ctx ends; then it closes ln, and joins
// what it started.
func (s *Server) ServeConnect(ctx context.Context, ln net.Listener) error {
	return outbound.Serve(ctx, ln, s.cfg.Conns, func() { s.full.Add(1) }, s.http)
}

// http serves one client: one request, since what follows is the stream.
func (s *Server) http(ctx context.Context, c net.Conn) {
	ctx = outbound.WithClient(ctx, addrPortOf(c.RemoteAddr()).Addr())
	s.open.Add(1)
	defer s.open.Add(-1)
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(helloTimeout))
	in := bufio.NewReader(io.LimitReader(c, maxHeader))
	t, user, password, err := readConnect(in)
	if err != nil {
		s.malformed.Add(1)
		var bad *badRequest
		if errors.As(err, &bad) {
			answer(c, bad.code, bad.why)
		}
		return
	}
	if len(s.cfg.Users) > 0 && !s.knows(user, password) {
		s.denied.Add(1)
		answer(c, http.StatusProxyAuthRequired, "user and password are needed", `Proxy-Authenticate: Basic realm="corax"`)
		return
	}
	s.requests.Add(1)
	_ = c.SetDeadline(time.Time{})
	far, err := s.cfg.Dialer.DialTCP(ctx, t.host, t.port)
	if err != nil {
		s.undialled(err)
		answer(c, codeTo(err), err.Error())
		return
	}
	early, _ := in.Peek(in.Buffered())
	if _, err = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err == nil {
		_, err = far.Write(early)
	}
	if err != nil {
		splice.Abort(far)
		return
	}
	s.join(ctx, c, far)
}

// badRequest is what is said to a client whose request is not served.
type badRequest struct {
	code int
	why  string
}

func (e *badRequest) Error() string { return e.why }

// readConnect reads a CONNECT request.
func readConnect(in *bufio.Reader) (t target, user, password string, err error) {
	r, err := http.ReadRequest(in)
	if err != nil {
		return t, "", "", &badRequest{http.StatusBadRequest, "not an HTTP request"}
	}
	if r.Method != http.MethodConnect {
		return t, "", "", &badRequest{http.StatusMethodNotAllowed, "only CONNECT is served"}
	}
	host, portText, err := net.SplitHostPort(r.Host)
	port, perr := strconv.ParseUint(portText, 10, 16)
	if err != nil || perr != nil || port == 0 || !goodName(host) {
		return t, "", "", &badRequest{http.StatusBadRequest, "not HOST:PORT"}
	}
	auth := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	user, password, _ = auth.BasicAuth()
	return target{host, uint16(port)}, user, password, nil
}

// answer ends a request that is not served.
func answer(c net.Conn, code int, why string, headers ...string) {
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n",
		code, http.StatusText(code), len(why)+1)
	for _, h := range headers {
		head += h + "\r\n"
	}
	_, _ = io.WriteString(c, head+"\r\n"+why+"\n")
}

// codeTo is the status for an error.
func codeTo(err error) int {
	switch replyTo(err) {
	case replyForbidden:
		return http.StatusForbidden
	case replyTimeout:
		return http.StatusGatewayTimeout
	default:
		return http.StatusBadGateway
	}
}

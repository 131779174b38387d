package front

import (
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"corax/proxy"
)

// TestHostileHTTP has what somebody may send to get where it may not. None of it
// reaches a node.
func TestHostileHTTP(t *testing.T) {
	w := run(t, plan(), func(c *Config) { c.Auth = &tokens{may: map[string]string{"a": "get metrics"}} })
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the node got %s %s %s", r.Method, r.Host, r.URL)
	}))
	const auth = "Authorization: Bearer a\r\n"
	for _, c := range []struct {
		name, request string
		code          proxy.Code
	}{
		{"length and chunked", "POST / HTTP/1.1\r\nHost: edge1:9100\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /pods HTTP/1.1\r\nHost: edge1:9100\r\n\r\n", proxy.CodeMalformed},
		{"chunked in disguise", "POST / HTTP/1.1\r\nHost: edge1:9100\r\nContent-Length: 4\r\nTransfer-Encoding : chunked\r\n\r\n", proxy.CodeMalformed},
		{"two lengths", "POST / HTTP/1.1\r\nHost: edge1:9100\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\n", proxy.CodeMalformed},
		{"two Hosts", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\nHost: edge2:9100\r\n\r\n", proxy.CodeMalformed},
		{"two node headers", "GET /metrics HTTP/1.1\r\nHost: svc:9100\r\nX-Tunnel-Proxy-Host: edge1\r\nX-Tunnel-Proxy-Host: edge2\r\n\r\n", proxy.CodeMalformed},
		{"two nodes", "GET /metrics?nodeName=edge2 HTTP/1.1\r\nHost: edge1:9100\r\n\r\n", proxy.CodeMalformed},
		{"userinfo", "GET /metrics HTTP/1.1\r\nHost: x@edge1:9100\r\n\r\n", proxy.CodeMalformed},
		{"userinfo in the target", "GET http://x:y@edge1:9100/metrics HTTP/1.1\r\nHost: a\r\n\r\n", proxy.CodeMalformed},
		{"https target", "GET https://edge1:9100/metrics HTTP/1.1\r\nHost: edge1:9100\r\n\r\n", proxy.CodeMalformed},
		{"file target", "GET file:///etc/passwd HTTP/1.1\r\nHost: edge1:9100\r\n\r\n", proxy.CodeMalformed},
		{"zone", "GET /metrics HTTP/1.1\r\nHost: [fe80::1%25eth0]:9100\r\n\r\n", proxy.CodeMalformed},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: edge1:9100\r\n" + auth + "\r\n", proxy.CodeForbidden},
		{"CONNECT", "CONNECT edge1:9100 HTTP/1.1\r\nHost: edge1:9100\r\n\r\n", proxy.CodeMalformed},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", proxy.CodeMalformed},
		{"upgrade to HTTP/2", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\n" + auth + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", proxy.CodeMalformed},
		{"TLS", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", proxy.CodeMalformed},
		{"bad escape", "GET /%zz HTTP/1.1\r\nHost: edge1:9100\r\n\r\n", proxy.CodeMalformed},
		{"huge head", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", proxy.CodeMalformed},
		{"many fields", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\n" + strings.Repeat("x: y\r\n", 20000) + "\r\n", proxy.CodeMalformed},
		{"loopback", "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9100\r\n\r\n", proxy.CodeUnknownNode},
		{"localhost", "GET /metrics HTTP/1.1\r\nHost: localhost:9100\r\n\r\n", proxy.CodeUnknownNode},
		{"metadata", "GET /latest/meta-data HTTP/1.1\r\nHost: 169.254.169.254:9100\r\n\r\n", proxy.CodeUnknownNode},
		{"metadata by query", "GET /?nodeName=169.254.169.254 HTTP/1.1\r\nHost: svc:9100\r\n\r\n", proxy.CodeUnknownNode},
		{"metadata by header", "GET / HTTP/1.1\r\nHost: svc\r\nX-Tunnel-Proxy-Host: 169.254.169.254\r\nX-Tunnel-Proxy-Dest: 169.254.169.254:9100\r\n\r\n", proxy.CodeUnknownNode},
		{"address of two nodes", "GET /metrics HTTP/1.1\r\nHost: 10.0.0.5:9100\r\n\r\n", proxy.CodeUnknownNode},
		{"another port by header", "GET /metrics HTTP/1.1\r\nHost: svc\r\nX-Tunnel-Proxy-Host: edge1\r\nX-Tunnel-Proxy-Dest: edge1:22\r\n\r\n", proxy.CodePort},
		{"no port", "GET /metrics HTTP/1.1\r\nHost: edge1\r\n\r\n", proxy.CodeMalformed},
		{"the front's own port", "GET /metrics HTTP/1.1\r\nHost: edge1:OWN\r\n\r\n", proxy.CodeMalformed},
		{"no token", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\n\r\n", proxy.CodeUnauthenticated},
		{"two tokens", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\n" + auth + auth + "\r\n", proxy.CodeUnauthenticated},
		{"password", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\nAuthorization: Basic YTphCg==\r\n\r\n", proxy.CodeUnauthenticated},
		{"expired token", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\nAuthorization: Bearer expired\r\n\r\n", proxy.CodeUnauthenticated},
		{"no rights", "GET /pods HTTP/1.1\r\nHost: edge1:9100\r\n" + auth + "\r\n", proxy.CodeForbidden},
		{"no rights, in disguise", "GET /metrics/%2e%2e/pods HTTP/1.1\r\nHost: edge1:9100\r\n" + auth + "\r\n", proxy.CodeForbidden},
		{"no rights, by another method", "POST /metrics HTTP/1.1\r\nHost: edge1:9100\r\nX-HTTP-Method-Override: GET\r\n" + auth + "\r\n", proxy.CodeForbidden},
		{"upgrade of metrics", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" + auth + "\r\n", proxy.CodeForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, own, _ := net.SplitHostPort(w.addr(kindHTTP))
			before := w.refusals(c.code)
			got := talk(t, "tcp", w.addr(kindHTTP), strings.ReplaceAll(c.request, "OWN", own))
			status, _, body := answerOf(t, got)
			if status != c.code.HTTPStatus() || !strings.HasPrefix(body, "corax: ") || strings.Count(got, "HTTP/1.1 ") != 1 {
				t.Errorf("answer %q, want %d", got, c.code.HTTPStatus())
			}
			w.wantRefused(c.code, before+1)
		})
	}
	eventually(t, "no pending connection", func() bool {
		w.pending.mu.Lock()
		defer w.pending.mu.Unlock()
		return w.pending.total == 0 && len(w.pending.by) == 0
	})
}

// TestPipelined shows that a request behind another one is not looked at.
func TestPipelined(t *testing.T) {
	w := run(t, plan(), nil)
	var got atomic.Int32
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	answer := talk(t, "tcp", w.addr(kindHTTP), strings.Repeat("GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\n\r\n", 3))
	if strings.Count(answer, "HTTP/1.1 200") != 1 || got.Load() != 1 {
		t.Errorf("%d requests, answer %q", got.Load(), answer)
	}
}

package front

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"corax/proxy"
)

// answerOf parses an answer.
func answerOf(t *testing.T, text string) (int, http.Header, string) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
	if err != nil {
		t.Fatalf("answer %q: %v", text, err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, string(body)
}

// echoNode answers with what it got.
func echoNode(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(rw, "%s %s %s %s", r.Method, r.Host, r.URL, body)
	for _, h := range []string{"Authorization", "X-Remote-User", "Impersonate-User", headerHost, headerDest, "X-Forwarded-For", "X-Mine", "Proxy-Authorization"} {
		if v := r.Header.Get(h); v != "" {
			fmt.Fprintf(rw, " %s=%s", h, v)
		}
	}
}

// TestHTTP shows the ways to name a node, and what of the request the node gets.
func TestHTTP(t *testing.T) {
	w := run(t, plan(), func(c *Config) { c.Auth = &tokens{may: map[string]string{"a": "get proxy,get metrics,create proxy"}} })
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(echoNode))
	w.httpNode(proxy.Target{Node: "edge2", Port: 9100}, nil, http.HandlerFunc(echoNode))
	addr := w.addr(kindHTTP)
	for _, c := range []struct{ name, request, want string }{
		{"Host", "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\n", "GET Edge1:9100 /metrics "},
		{"Host with a dot", "GET /metrics HTTP/1.1\r\nHost: edge1.:9100\r\n", "GET Edge1:9100 /metrics "},
		{"query", "GET /metrics?nodeName=edge2&x=1 HTTP/1.1\r\nHost: svc:9100\r\n", "GET edge2:9100 /metrics?x=1 "},
		{"headers", "GET / HTTP/1.1\r\nHost: svc\r\nX-Tunnel-Proxy-Host: edge2\r\nX-Tunnel-Proxy-Dest: 10.0.0.5:9100\r\n", "GET edge2:9100 / "},
		{"absolute target", "GET http://edge2:9100/a HTTP/1.1\r\nHost: edge1:9100\r\n", "GET edge2:9100 /a "},
		{"body", "POST /a HTTP/1.1\r\nHost: edge1:9100\r\nContent-Length: 2\r\n\r\nhi", "POST Edge1:9100 /a hi"},
		{"chunks", "POST /a HTTP/1.1\r\nHost: edge1:9100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "POST Edge1:9100 /a hi"},
		{"what is for us alone", "GET / HTTP/1.1\r\nHost: edge1:9100\r\nX-Remote-User: root\r\nImpersonate-User: root\r\nX-Forwarded-For: 1.1.1.1\r\nX-Mine: 1\r\nConnection: x-mine\r\n", "GET Edge1:9100 / "},
	} {
		t.Run(c.name, func(t *testing.T) {
			head, body, _ := strings.Cut(c.request, "\r\n\r\n")
			text := strings.TrimSuffix(head, "\r\n") + "\r\nAuthorization: Bearer a\r\n\r\n" + body
			answer := talk(t, "tcp", addr, text)
			status, _, got := answerOf(t, answer)
			if status != 200 || got != c.want {
				t.Errorf("%d %q, want %q", status, got, c.want)
			}
			if !strings.Contains(answer, "\r\nConnection: close\r\n") {
				t.Errorf("the connection is kept alive: %q", answer)
			}
		})
	}
}

// TestWithoutAuth shows that plain HTTP then stays on loopback, no TLS ends here,
// and credentials are not touched.
func TestWithoutAuth(t *testing.T) {
	p := plan()
	p.HTTP = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")}
	w := run(t, p, func(c *Config) {
		c.Certificate = func() (*tls.Certificate, error) { t.Error("a certificate is asked for"); return nil, io.EOF }
		c.Unnamed = true
	})
	for _, l := range w.Listeners() {
		if a, err := netip.ParseAddrPort(l.Addr); l.Front == kindHTTP && l.Err == nil && (err != nil || !a.Addr().IsLoopback()) {
			t.Errorf("listens on %s", l.Addr)
		}
	}
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(echoNode))
	_, _, got := answerOf(t, talk(t, "tcp", w.addr(kindHTTP), "GET / HTTP/1.1\r\nHost: edge1:9100\r\nAuthorization: Basic xyz\r\n\r\n"))
	if got != "GET Edge1:9100 /  Authorization=Basic xyz" {
		t.Errorf("answer %q", got)
	}
	err := tls.Client(dial(t, "tcp", w.addr(kindTLS)), &tls.Config{InsecureSkipVerify: true}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("handshake without a name: %v", err)
	}
}

// TestStreaming shows that an answer comes as the node writes it, and ends when the
// caller leaves.
func TestStreaming(t *testing.T) {
	w := run(t, plan(), nil)
	next, gone := make(chan string), make(chan struct{})
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for {
			select {
			case s := <-next:
				_, _ = io.WriteString(rw, s)
				_ = http.NewResponseController(rw).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	c := dial(t, "tcp", w.addr(kindHTTP))
	_, _ = io.WriteString(c, "GET /logs HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
	next <- "one\n"
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for _, want := range []string{"one", "two", "three"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("line %q, %v, want %q", lines.Text(), lines.Err(), want)
		}
		if want != "three" {
			next <- map[string]string{"one": "two\n", "two": "three\n"}[want]
		}
	}
	if l := w.cfg.Live.List(); len(l) != 1 || l[0].Path != "/logs" || l[0].Target.Node != "Edge1" {
		t.Errorf("live %+v", l)
	}
	_ = c.Close()
	<-gone
	eventually(t, "audit line", func() bool { return strings.Contains(w.log.String(), `end="caller: left"`) })
	if w.cfg.Live.Len() != 0 || w.cfg.Counters.Snapshot().Refused[proxy.CodeBackend] != 0 {
		t.Error("a stream is left, or the node is blamed")
	}
}

// TestNodeBreaks shows that an answer cut off at the node is cut off for the caller.
func TestNodeBreaks(t *testing.T) {
	w := run(t, plan(), nil)
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(rw, "part")
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	}))
	c := dial(t, "tcp", w.addr(kindHTTP))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("%q came as a whole", body)
	}
	eventually(t, "audit line", func() bool { return strings.Contains(w.log.String(), `status=200 end="node: read: unexpected EOF"`) })
}

// TestUnasked shows that a node cannot make a tunnel of an answer.
func TestUnasked(t *testing.T) {
	for _, head := range []string{"\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"} {
		w := run(t, plan(), nil)
		w.nodes.set(proxy.Target{Node: "Edge1", Port: 9100}, listen(t, func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n"+head+"bytes")
			_, _ = io.Copy(io.Discard, c)
		}))
		got := talk(t, "tcp", w.addr(kindHTTP), "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
		if status, _, body := answerOf(t, got); status != 502 || !strings.Contains(body, "nobody asked for") {
			t.Errorf("%d %q", status, body)
		}
		w.wantRefused(proxy.CodeBackend, 1)
	}
}

// TestBadAnswers shows that a node which does not speak proper HTTP harms nobody.
func TestBadAnswers(t *testing.T) {
	for _, answer := range []string{
		"", "SSH-2.0\r\n", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 100<<10) + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	} {
		for _, up := range []string{"", "Connection: Upgrade\r\nUpgrade: websocket\r\n"} {
			w := run(t, plan(), nil)
			w.nodes.set(proxy.Target{Node: "Edge1", Port: 9100}, listen(t, func(c net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, answer)
			}))
			got := talk(t, "tcp", w.addr(kindHTTP), "GET / HTTP/1.1\r\nHost: edge1:9100\r\n"+up+"\r\n")
			if status, _, body := answerOf(t, got); status != 502 || !strings.HasPrefix(body, "corax: node: ") {
				t.Errorf("%d %q to %.30q", status, body, answer)
			}
			w.wantRefused(proxy.CodeBackend, 1)
		}
	}
}

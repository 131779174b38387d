package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// TestSlow has callers that say less than they should, on a clock of its own.
func TestSlow(t *testing.T) {
	hello := helloFor(&tls.Config{ServerName: "edge1"})
	for _, c := range []struct {
		name, kind string
		say        []byte
		every      time.Duration
		answer     string
	}{
		{"silent on TLS", kindTLS, nil, 0, ""},
		{"hello byte by byte", kindTLS, hello, time.Second, ""},
		{"silent on HTTP", kindHTTP, nil, 0, "HTTP/1.1 408 Request Timeout"},
		{"head byte by byte", kindHTTP, []byte("GET /metrics HTTP/1.1\r\n"), time.Second, "HTTP/1.1 408 Request Timeout"},
		{"many fields, slowly", kindHTTP, bytes.Repeat([]byte("GET: x\r\n"), 1000), 10 * time.Millisecond, "HTTP/1.1 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := routing(t)
				here, there := net.Pipe()
				began := time.Now()
				done := make(chan struct{})
				go func() {
					f.serve(context.Background(), &arrival{Conn: there, kind: c.kind, began: began, leave: func() {}})
					close(done)
				}()
				go func() {
					for _, b := range c.say {
						if _, err := here.Write([]byte{b}); err != nil {
							return
						}
						select {
						case <-time.After(c.every):
						case <-done:
							return
						}
					}
				}()
				got, _ := io.ReadAll(here)
				<-done
				if took := time.Since(began); took > sayWithin+time.Second {
					t.Errorf("took %v", took)
				}
				if !strings.HasPrefix(string(got), c.answer) || c.answer == "" && len(got) != 0 {
					t.Errorf("answer %q", got)
				}
				if s := f.cfg.Counters.Snapshot(); s.Refused[proxy.CodeSlow]+s.Refused[proxy.CodeMalformed] != 1 {
					t.Errorf("counted %v", s.Refused)
				}
				_ = here.Close()
			})
		})
	}
}

// TestPendingLimit shows that those who say nothing cannot keep others out for
// ever, and that they are bounded.
func TestPendingLimit(t *testing.T) {
	w := run(t, plan(), func(c *Config) { c.MaxPending = 4 }) // 2 by one address
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(echoNode))
	silent := []net.Conn{dial(t, "tcp", w.addr(kindHTTP)), dial(t, "tcp", w.addr(kindTLS))}
	eventually(t, "two pending", func() bool {
		w.pending.mu.Lock()
		defer w.pending.mu.Unlock()
		return w.pending.total == 2
	})
	if b, _ := io.ReadAll(dial(t, "tcp", w.addr(kindHTTP))); len(b) != 0 {
		t.Errorf("answer %q", b)
	}
	w.wantRefused(proxy.CodeLimit, 1)
	_ = silent[0].Close()
	eventually(t, "an answer", func() bool {
		c := dial(t, "tcp", w.addr(kindHTTP))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
		b, _ := io.ReadAll(c)
		return bytes.HasPrefix(b, []byte("HTTP/1.1 200"))
	})
}

// TestLingers shows that who was refused and stays is not waited for.
func TestLingers(t *testing.T) {
	w := run(t, plan(), nil)
	for _, kind := range []string{kindTLS, kindHTTP} {
		c := dial(t, "tcp", w.addr(kind))
		_, _ = io.WriteString(c, "EHLO\r\n\r\n")
		if b, err := io.ReadAll(c); !bytes.Contains(b, []byte("400 Bad Request")) || err != nil {
			t.Errorf("answer %q, %v", b, err)
		}
	}
	eventually(t, "no pending connection", func() bool {
		w.pending.mu.Lock()
		defer w.pending.mu.Unlock()
		return w.pending.total == 0
	})
}

// TestStreamLimit shows what callers get beyond the limit of streams.
func TestStreamLimit(t *testing.T) {
	w := run(t, plan(), func(c *Config) { c.Live = proxy.NewLive(proxy.Limits{Streams: 2, PerCaller: 1}) })
	hold := make(chan struct{})
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	t.Cleanup(sync.OnceFunc(func() { close(hold) }))
	first := dial(t, "tcp", w.addr(kindHTTP))
	_, _ = io.WriteString(first, "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
	eventually(t, "a stream", func() bool { return w.cfg.Live.Len() == 1 })
	got := talk(t, "tcp", w.addr(kindHTTP), "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
	if status, _, body := answerOf(t, got); status != 503 || !strings.Contains(body, "the limit of one caller") {
		t.Errorf("%d %q", status, body)
	}
	w.wantRefused(proxy.CodeLimit, 1)
}

// TestSlowReader has one caller that reads nothing beside 500 that go on.
func TestSlowReader(t *testing.T) {
	const streams, rounds = 500, 5
	w := run(t, plan(), nil)
	flood := listen(t, func(c net.Conn) {
		block := make([]byte, 64<<10)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	echo := listen(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, flood)
	w.nodes.set(proxy.Target{Node: "edge2", Port: 10250}, echo)

	stuck := dial(t, "tcp", w.addr(kindTLS))
	_, _ = stuck.Write(helloWith(sni("edge1")))
	down := func() uint64 { return w.cfg.Counters.Down.Load() }
	eventually(t, "flood", func() bool { return down() > 0 })

	hello := helloWith(sni("edge2"))
	conns := make([]net.Conn, streams)
	for i := range conns {
		conns[i] = dial(t, "tcp", w.addr(kindTLS))
		_, _ = conns[i].Write(hello)
	}
	var wg sync.WaitGroup
	errs := make(chan error, streams)
	for i, c := range conns {
		wg.Go(func() {
			if _, err := io.ReadFull(c, make([]byte, len(hello))); err != nil {
				errs <- fmt.Errorf("stream %d: hello: %w", i, err)
				return
			}
			for range rounds {
				if _, err := io.WriteString(c, "ping"); err != nil {
					errs <- err
					return
				}
				if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
					errs <- fmt.Errorf("stream %d: %w", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	// What is taken of the flood is what sockets hold, and then no more.
	last := down()
	eventually(t, "end of what sockets take", func() bool { n := down(); done := n == last; last = n; return done })
	if l := w.cfg.Live.List(); len(l) != streams+1 || l[0].Down > 64<<20 {
		t.Errorf("%d streams, the stuck one took %d bytes", len(l), l[0].Down)
	}
	for _, c := range append(conns, stuck) {
		_ = c.Close()
	}
	eventually(t, "end of streams", func() bool { return w.cfg.Live.Len() == 0 })
}

// TestEnd shows what a plan that ends streams does, and one that does not.
func TestEnd(t *testing.T) {
	w := run(t, plan(), nil)
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, listen(t, func(c net.Conn) { _, _ = io.Copy(c, c) }))
	addr := w.addr(kindTLS)
	c := dial(t, "tcp", addr)
	hello := helloWith(sni("edge1"))
	_, _ = c.Write(hello)
	if _, err := io.ReadFull(c, make([]byte, len(hello))); err != nil {
		t.Fatal(err)
	}
	w.Apply(Plan{})
	eventually(t, "closed listeners", func() bool { return len(w.Listeners()) == 0 })
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the front still listens")
	}
	_, _ = io.WriteString(c, "ping")
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatalf("the stream ended with its listener: %v", err)
	}
	w.Apply(Plan{End: true})
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the stream goes on")
	}
	eventually(t, "audit line", func() bool { return strings.Contains(w.log.String(), `end="proxy mode was switched off"`) })
}

// TestApply shows that listeners come and go alone, and that one which cannot be
// opened is reported and hinders no other.
func TestApply(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := plan()
	p.TLS = append(p.TLS, TLSListener{netip.MustParseAddrPort(taken.Addr().String()), 9443})
	p.Connect = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")} // without a certificate
	w := run(t, p, nil)
	l := w.Listeners()
	if len(l) != 4 || l[0].Err != nil || l[1].Err == nil || l[2].Err != nil || l[3].Err == nil {
		t.Fatalf("listeners %+v", l)
	}
	before := w.addr(kindTLS)
	asked := make(chan string, 2)
	for _, port := range []uint16{10250, 9443} {
		w.nodes.set(proxy.Target{Node: "Edge1", Port: port}, listen(t, func(net.Conn) { asked <- fmt.Sprint(port) }))
	}
	say := func() string {
		c := dial(t, "tcp", w.addr(kindTLS))
		_, _ = c.Write(helloWith(sni("edge1")))
		_, _ = io.ReadAll(c)
		return <-asked
	}
	if got := say(); got != "10250" {
		t.Errorf("port %s", got)
	}
	p.TLS = []TLSListener{{p.TLS[0].Addr, 9443}}
	p.HTTP, p.Connect = nil, nil
	w.Apply(p)
	eventually(t, "one listener", func() bool { return len(w.Listeners()) == 1 })
	if w.addr(kindTLS) != before {
		t.Errorf("%s is now %s", before, w.addr(kindTLS))
	}
	if got := say(); got != "9443" {
		t.Errorf("port %s", got)
	}
}

// TestStop shows that Run leaves nothing, in whatever state connections are.
func TestStop(t *testing.T) {
	w := run(t, plan(), nil)
	hold := make(chan struct{})
	defer close(hold)
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 9100}, listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
	_ = dial(t, "tcp", w.addr(kindTLS))
	_ = dial(t, "tcp", w.addr(kindHTTP))
	tlsConn := dial(t, "tcp", w.addr(kindTLS))
	_, _ = tlsConn.Write(helloWith(sni("edge1")))
	web := dial(t, "tcp", w.addr(kindHTTP))
	_, _ = io.WriteString(web, "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
	up := dial(t, "tcp", w.addr(kindHTTP))
	_, _ = io.WriteString(up, "GET / HTTP/1.1\r\nHost: edge1:9100\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	eventually(t, "three streams", func() bool { return w.cfg.Live.Len() == 3 })
	w.stop()
	if w.cfg.Live.Len() != 0 {
		t.Errorf("left: %+v", w.cfg.Live.List())
	}
}

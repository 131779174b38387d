package stream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"corax/dataplane/key"
)

// proxy is a tiny HTTP proxy that knows CONNECT: it leads every name to one hub.
type proxy struct {
	hub    string
	user   string // "user:password", or empty
	answer string // instead of a tunnel

	mu    sync.Mutex
	asked []string
}

// serve takes connections until the listener is closed, and joins what it
// started.
func (p *proxy) serve(l net.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer c.Close()
			p.tunnel(c)
		})
	}
}

func (p *proxy) tunnel(c net.Conn) {
	b := bufio.NewReader(c)
	r, err := http.ReadRequest(b)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	p.mu.Unlock()
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user))
	switch {
	case p.answer != "":
		_, _ = io.WriteString(c, p.answer)
		return
	case p.user != "" && r.Header.Get("Proxy-Authorization") != want:
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
		return
	}
	hub, err := net.Dial("tcp", p.hub)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer hub.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(hub, b)
		_ = hub.Close()
	}()
	_, _ = io.Copy(c, hub)
}

func (p *proxy) start(t testing.TB) string {
	t.Helper()
	l := listen(t)
	done := make(chan struct{})
	go func() { defer close(done); p.serve(l) }()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func proxyIs(s string) func(*url.URL) (*url.URL, error) {
	return func(*url.URL) (*url.URL, error) { return url.Parse(s) }
}

// startHub runs a hub on loopback that sends back what it gets.
func startHub(t testing.TB, known key.Public) (addr string, public key.Public, s *Server) {
	t.Helper()
	private := newPrivate(t)
	l := listen(t)
	s, err := New(Config{
		Private: private, Listener: l, Known: func(k key.Public) bool { return k == known },
		Receive: func(c *Conn, list [][]byte) { c.Send(list) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), private.Public(), s
}

// echo sends one datagram and waits for it to come back.
func echo(t *testing.T, c *Conn, got <-chan []byte) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	c.Send([][]byte{[]byte("datagram")})
	select {
	case b := <-got:
		if !bytes.Equal(b, []byte("datagram")) {
			t.Errorf("got %q", b)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing came back")
	}
}

func keep(got chan<- []byte) func(*Conn, [][]byte) {
	return func(_ *Conn, list [][]byte) {
		for _, d := range list {
			got <- bytes.Clone(d)
		}
	}
}

func TestProxy(t *testing.T) {
	own := newPrivate(t)
	hub, public, _ := startHub(t, own.Public())
	for _, tt := range []struct {
		name  string
		proxy *proxy
		user  string
		want  string // in the error; empty: it works
	}{
		{"open", &proxy{}, "", ""},
		{"with a password", &proxy{user: "edge:s e:c@ret"}, url.UserPassword("edge", "s e:c@ret").String() + "@", ""},
		{"without its password", &proxy{user: "edge:secret"}, "", "wants a user and a password"},
		{"with a wrong password", &proxy{user: "edge:secret"}, "edge:wrong@", "wants a user and a password"},
		{"an open one gets a password", &proxy{}, "edge:secret@", ""},
		{"refuses", &proxy{answer: "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!"}, "", "refuses CONNECT: 403 Forbidden"},
		{"cannot reach the hub", &proxy{hub: "127.0.0.1:1"}, "", "refuses CONNECT: 502 Bad Gateway"},
		{"hangs up", &proxy{answer: "HTTP/1.1 200"}, "", "no whole answer"},
		{"is none", &proxy{answer: "SSH-2.0-OpenSSH\r\n\r\n"}, "", "answer to CONNECT"},
		{"speaks first", &proxy{answer: "HTTP/1.1 200 OK\r\n\r\nhello"}, "", "speaks behind its answer"},
		{"never stops", &proxy{answer: "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 1<<20)}, "", "no whole answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.proxy
			if p.hub == "" {
				p.hub = hub
			}
			addr := p.start(t)
			got := make(chan []byte, 10)
			c, err := Dial(t.Context(), DialConfig{
				Private: own, Hub: public, Addr: "hub.example:10280", Receive: keep(got), Proxy: proxyIs("http://" + tt.user + addr),
			})
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				echo(t, c, got)
			} else if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "wrong") {
				t.Errorf("%v, want %q", err, tt.want)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.asked) != 1 || p.asked[0] != "CONNECT hub.example:10280" {
				t.Errorf("asked for %q", p.asked)
			}
		})
	}
}

// TestProxyTLS: a proxy with https is asked for its certificate.
func TestProxyTLS(t *testing.T) {
	own := newPrivate(t)
	hub, public, _ := startHub(t, own.Public())
	_, err := Dial(t.Context(), DialConfig{
		Private: own, Hub: public, Addr: "hub.example:1", Receive: ignore, Proxy: proxyIs("https://u:secret@" + hub),
	})
	if err == nil || !strings.Contains(err.Error(), "x509") || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v, want an x509 error", err)
	}
}

const helperEnv = "CORAX_STREAM_TEST_HELPER" // hub key, and where to dial

// TestEnvironment runs this test again with a proxy in the environment, which
// net/http reads once.
func TestEnvironment(t *testing.T) {
	own := newPrivate(t)
	hub, public, _ := startHub(t, own.Public())
	p := &proxy{hub: hub, user: "edge:secret"}
	addr := p.start(t)
	secret := own.Bytes()
	run := func(name string, env ...string) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDialHelper$", "-test.v")
		cmd.Env = append(env, helperEnv+"="+public.String()+" "+name)
		cmd.Stdin = bytes.NewReader(secret[:])
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS: TestDialHelper")) {
			t.Errorf("%s %q: %v\n%s", name, env, err, out)
		}
	}
	run("hub.example:10280", "HTTPS_PROXY=http://edge:secret@"+addr)
	run("hub.example:10281", "https_proxy=http://edge:secret@"+addr, "NO_PROXY=other.example")
	// A hub that is excepted is dialled directly.
	run(hub, "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1")
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) != 2 {
		t.Errorf("the proxy was asked for %q", p.asked)
	}
}

func TestDialHelper(t *testing.T) {
	hub, addr, ok := strings.Cut(os.Getenv(helperEnv), " ")
	if !ok {
		t.Skip("only run by TestEnvironment")
	}
	public, err := key.ParsePublic(hub)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := io.ReadAll(os.Stdin)
	if err != nil {
		t.Fatal(err)
	}
	own, err := key.ParsePrivate(base64.StdEncoding.EncodeToString(secret))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte, 1)
	c, err := Dial(t.Context(), DialConfig{Private: own, Hub: public, Addr: addr, Receive: keep(got)})
	if err != nil {
		t.Fatal(err)
	}
	echo(t, c, got)
}

func FuzzProxyAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 407 no\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.1 204\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &counting{r: bytes.NewReader(b)}
		err := readProxyAnswer(r)
		if r.n > maxProxyAnswer {
			t.Errorf("read %d bytes", r.n)
		}
		if err == nil && !bytes.HasPrefix(b, []byte("HTTP/")) {
			t.Errorf("%q is an answer", b)
		}
	})
}

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

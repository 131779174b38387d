package front

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"corax/proxy"
)

// TestConnect speaks as the API server does.
func TestConnect(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	p := plan()
	p.Connect = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	p.ConnectSocket = filepath.Join(t.TempDir(), "connect.sock")
	w := run(t, p, func(c *Config) {
		c.Connect = ConnectTLS{
			Certificate: func() (*tls.Certificate, error) { return ca.issue("front", "127.0.0.1"), nil },
			ClientCAs:   ca.cas, Names: []string{"kube-apiserver", "alt.example.org"},
			Cluster: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("127.0.0.0/8")},
		}
	})
	echo := listen(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	for _, n := range []string{"Edge1", "edge3.example.org"} {
		w.nodes.set(proxy.Target{Node: n, Port: 10250}, echo)
	}
	if info, err := os.Stat(p.ConnectSocket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info.Mode(), err)
	}
	connect := func(t *testing.T, c io.ReadWriter, authority string) (int, string) {
		t.Helper()
		_, _ = io.WriteString(c, "CONNECT "+authority+" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		br := bufio.NewReader(c)
		res, err := http.ReadResponse(br, &http.Request{Method: "CONNECT"})
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 200 {
			body, _ := io.ReadAll(res.Body)
			return res.StatusCode, string(body)
		}
		if br.Buffered() != 0 {
			t.Error("bytes behind the answer")
		}
		if _, err := io.WriteString(c, "ping"); err != nil {
			t.Fatal(err)
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("reading: %v", err)
		}
		return 200, string(got)
	}
	for _, c := range []struct {
		authority string
		status    int
		body      string
	}{
		{"edge1:10250", 200, "ping"},
		{"host1:10250", 200, "ping"},
		{"10.0.0.7:10250", 200, "ping"},
		{"10.0.0.5:10250", 404, "corax: request: no node"},
		{"127.0.0.1:10250", 404, "corax: request: no node"},
		{"edge1:22", 403, "corax: request: port 22"},
		{"edge2:10250", 502, "corax: node: nobody listens there"},
		{"edge1", 400, "corax: request: CONNECT names no port"},
		{"user@edge1:10250", 400, "corax: request: host"},
		{"[fe80::1%eth0]:10250", 400, "corax: request: host"},
		{"edge1:10250/x", 400, "corax: request: host"},
		{"http://edge1:10250/", 400, "corax: request: host"},
	} {
		t.Run(c.authority, func(t *testing.T) {
			status, body := connect(t, dial(t, "unix", p.ConnectSocket), c.authority)
			if status != c.status || !strings.HasPrefix(body, c.body) {
				t.Errorf("%d %q, want %d %q", status, body, c.status, c.body)
			}
		})
	}
	t.Run("not CONNECT", func(t *testing.T) {
		got := talk(t, "unix", p.ConnectSocket, "GET http://edge1:10250/ HTTP/1.1\r\nHost: edge1\r\n\r\n")
		if status, _, body := answerOf(t, got); status != 400 || !strings.Contains(body, "only CONNECT") {
			t.Errorf("%d %q", status, body)
		}
	})
	t.Run("with a body", func(t *testing.T) {
		got := talk(t, "unix", p.ConnectSocket, "CONNECT edge1:10250 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
		if status, _, body := answerOf(t, got); status != 400 || !strings.Contains(body, "no body") {
			t.Errorf("%d %q", status, body)
		}
	})
	t.Run("impatient", func(t *testing.T) {
		c := dial(t, "unix", p.ConnectSocket)
		_, _ = io.WriteString(c, "CONNECT edge1:10250 HTTP/1.1\r\nHost: a\r\n\r\nearly")
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		if got, _ := io.ReadAll(c); !strings.HasSuffix(string(got), "\r\n\r\nearly") {
			t.Errorf("answer %q", got)
		}
	})
	t.Run("the cluster's addresses", func(t *testing.T) {
		f := w.Front
		for authority, want := range map[string]bool{
			"10.96.0.1:443": true, "10.0.0.5:443": false, "10.0.0.7:10250": false /* a node has it */, "127.0.0.1:443": false,
			"192.0.2.1:443": false, "[::ffff:127.0.0.1]:443": false, "10.96.0.1:0": false,
		} {
			if target, plain, err := f.connectTarget(authority); plain != want || plain && (err != nil || target.Port != 443) {
				t.Errorf("%s: %v, dialled by this host: %t, %v", authority, target, plain, err)
			}
		}
	})
	for _, c := range []struct {
		name string
		cert *tls.Certificate
		ok   bool
	}{
		{"name of ours", ca.issue("kube-apiserver"), true},
		{"DNS name", ca.issue("x", "alt.example.org"), true},
		{"other name", ca.issue("kubelet"), false},
		{"other CA", other.issue("kube-apiserver"), false},
		{"no certificate", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1"}
			if c.cert != nil {
				cfg.Certificates = []tls.Certificate{*c.cert}
			}
			var addr string
			for _, l := range w.Listeners() {
				if l.Front == kindConnect && strings.HasPrefix(l.Addr, "127.") {
					addr = l.Addr
				}
			}
			conn := tls.Client(dial(t, "tcp", addr), cfg)
			if c.ok {
				if status, body := connect(t, conn, "edge1:10250"); status != 200 || body != "ping" {
					t.Errorf("%d %q", status, body)
				}
				return
			}
			_, _ = io.WriteString(conn, "CONNECT edge1:10250 HTTP/1.1\r\nHost: a\r\n\r\n")
			if b, err := io.ReadAll(conn); err == nil {
				t.Errorf("answer %q", b)
			}
		})
	}
	w.wantRefused(proxy.CodeUnauthenticated, 3)
	if log := w.log.String(); !strings.Contains(log, "user=kube-apiserver") {
		t.Errorf("audit lines:\n%s", log)
	}
}
